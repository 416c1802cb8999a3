#ifndef GPIPE_WORKER_SESSION_GRPC_ARTIFACTS_H_
#define GPIPE_WORKER_SESSION_GRPC_ARTIFACTS_H_

#include <filesystem>
#include <optional>
#include <utility>

#include "common/artifacts/transfer.h"
#include "worker/data/artifacts.h"

namespace gpipe::worker {

// The orchestrator's artifacts over gRPC; those in a folder of this machine are found there.
class GrpcArtifacts : public Artifacts {
 public:
  // `stub` must outlive this. `folder` is that of the orchestrator; empty: it is on another machine.
  explicit GrpcArtifacts(v1::ArtifactService::StubInterface& stub, std::filesystem::path folder = {})
      : stub_(stub), folder_(std::move(folder)) {}

  absl::StatusOr<v1::ArtifactRef> Upload(const std::filesystem::path& path) override;
  absl::StatusOr<std::optional<std::filesystem::path>> Find(const v1::ArtifactRef& ref) override;
  absl::Status Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) override;
  absl::Status Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) override;

 private:
  v1::ArtifactService::StubInterface& stub_;
  const std::filesystem::path folder_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_GRPC_ARTIFACTS_H_
