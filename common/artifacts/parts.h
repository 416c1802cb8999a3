#ifndef GPIPE_COMMON_ARTIFACTS_PARTS_H_
#define GPIPE_COMMON_ARTIFACTS_PARTS_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "common/artifacts/layout.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe {

// Parts of models and checkpoints on their way from workers to the orchestrator: in its folder of artifacts, where
// workers leave them if they may write to it (common/artifacts/local_store.h), and uploads put them. Each is under the
// name of its content, in a folder that only its attempt has, so that nobody else can have come to refer to it, and not
// synced. The orchestrator makes content of them or joins them, and removes the folder.

inline std::filesystem::path PartsFolder(const std::filesystem::path& artifacts, const v1::AttemptId& attempt) {
  return artifacts / kTemporaryFolder / ("parts-" + attempt.job() + "-" + std::to_string(attempt.attempt()));
}

inline std::filesystem::path PartFolder(const std::filesystem::path& artifacts, const v1::PartOf& of) {
  return PartsFolder(artifacts, of.attempt()) / (of.has_step() ? std::to_string(of.step()) : "final");
}

// The checkpoint of that step, or the final model.
inline v1::PartOf MakePartOf(const v1::AttemptId& attempt, std::optional<int64_t> step = std::nullopt) {
  v1::PartOf of;
  *of.mutable_attempt() = attempt;
  if (step) of.set_step(*step);
  return of;
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_PARTS_H_
