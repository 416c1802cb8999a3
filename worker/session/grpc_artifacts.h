#ifndef GPIPE_WORKER_SESSION_GRPC_ARTIFACTS_H_
#define GPIPE_WORKER_SESSION_GRPC_ARTIFACTS_H_

#include "common/artifacts/transfer.h"
#include "worker/data/artifacts.h"

namespace gpipe::worker {

// The orchestrator's artifacts over gRPC.
class GrpcArtifacts : public Artifacts {
 public:
  // `stub` must outlive this.
  explicit GrpcArtifacts(v1::ArtifactService::StubInterface& stub) : stub_(stub) {}

  absl::StatusOr<v1::ArtifactRef> Upload(const std::filesystem::path& path) override { return UploadFile(stub_, path); }
  absl::Status Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) override {
    return DownloadFile(stub_, ref, path);
  }
  absl::Status Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) override {
    return ReadRange(stub_, ref, offset, data);
  }

 private:
  v1::ArtifactService::StubInterface& stub_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_GRPC_ARTIFACTS_H_
