#ifndef GPIPE_COMMON_ARTIFACTS_PARTS_H_
#define GPIPE_COMMON_ARTIFACTS_PARTS_H_

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/artifacts/layout.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe {

// Parts of models and checkpoints that workers leave in the orchestrator's folder of artifacts, where they may write to
// it (common/artifacts/local_store.h): each under the name of its content, in a folder that only their attempt has, so
// that nobody else can have come to refer to them, and not synced. The orchestrator makes content of them or joins
// them, and removes the folder.

inline std::filesystem::path PartsFolder(const std::filesystem::path& artifacts, const v1::AttemptId& attempt) {
  return artifacts / kTemporaryFolder / ("parts-" + attempt.job() + "-" + std::to_string(attempt.attempt()));
}

// Of the checkpoint of that step.
inline std::filesystem::path CheckpointParts(const std::filesystem::path& artifacts, const v1::AttemptId& attempt,
                                             int64_t step) {
  return PartsFolder(artifacts, attempt) / std::to_string(step);
}

// Of the final model.
inline std::filesystem::path FinalParts(const std::filesystem::path& artifacts, const v1::AttemptId& attempt) {
  return PartsFolder(artifacts, attempt) / "final";
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_PARTS_H_
