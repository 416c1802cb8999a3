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
  // `connections` must outlive this. `folder` is that of the orchestrator; empty: it is on another machine.
  explicit GrpcArtifacts(ArtifactConnections& connections, std::filesystem::path folder = {})
      : connections_(connections), folder_(std::move(folder)) {}

  void Attend(std::stop_token stop, std::function<void(int64_t bytes)> on_bytes) override;

  absl::StatusOr<v1::ArtifactRef> Upload(const std::filesystem::path& path) override;
  absl::Status UploadPart(const v1::PartOf& of, const v1::ArtifactRef& ref, const std::filesystem::path& path) override;
  std::optional<std::filesystem::path> WritableFolder() override;
  absl::StatusOr<std::optional<std::filesystem::path>> Find(const v1::ArtifactRef& ref) override;
  absl::Status Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) override;
  absl::Status Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) override;

 private:
  // Tells on_bytes_ of what has come since the last time.
  TransferOptions Options();

  ArtifactConnections& connections_;
  const std::filesystem::path folder_;
  std::stop_token stop_;
  std::function<void(int64_t)> on_bytes_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_GRPC_ARTIFACTS_H_
