#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_WORKER_PARTS_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_WORKER_PARTS_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/artifacts/manifest.h"

namespace gpipe::orchestrator {

// The parts of one model or checkpoint, as its workers have handed them over: content, or files left in `folder`. Used
// by one thread.
class WorkerParts {
 public:
  // `store` must outlive this.
  WorkerParts(ArtifactStore& store, std::filesystem::path folder) : store_(store), folder_(std::move(folder)) {}

  // Makes files with all tensors of the parts, named after the stem: one, where they have at most `max_bytes` together,
  // else the parts themselves, and their index. NOT_FOUND, INVALID_ARGUMENT as AssembleCheckpoint.
  absl::StatusOr<std::map<std::string, Manifest::File>> Assemble(std::string_view stem,
                                                                 absl::Span<const v1::ArtifactRef> refs,
                                                                 int64_t max_bytes);

 private:
  struct Part {
    v1::ArtifactRef ref;
    std::filesystem::path path;
    std::vector<std::string> tensors;
    uint64_t data_bytes = 0;
  };

  absl::StatusOr<Part> Open(const v1::ArtifactRef& ref) const;
  absl::StatusOr<std::map<std::string, Manifest::File>> Keep(std::string_view stem, const std::vector<Part>& parts);
  absl::StatusOr<Manifest::File> KeepOne(const Part& part);
  absl::StatusOr<Manifest::File> Join(const std::vector<Part>& parts);

  ArtifactStore& store_;
  const std::filesystem::path folder_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_WORKER_PARTS_H_
