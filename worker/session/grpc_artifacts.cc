#include "worker/session/grpc_artifacts.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/artifacts/layout.h"
#include "common/artifacts/local_store.h"
#include "common/link_or_copy.h"
#include "common/status_macros.h"
#include "worker/data/file_range.h"

namespace gpipe::worker {

void GrpcArtifacts::Attend(std::stop_token stop, std::function<void(int64_t bytes)> on_bytes) {
  stop_ = std::move(stop);
  on_bytes_ = std::move(on_bytes);
}

TransferOptions GrpcArtifacts::Options() {
  TransferOptions options;
  options.stop = stop_;
  if (on_bytes_) {
    options.on_progress = [this, before = int64_t{0}](const FileProgress& progress) mutable {
      if (progress.doing == FileProgress::Doing::kHashing) return;
      on_bytes_(progress.done - before);
      before = progress.done;
    };
  }
  return options;
}

absl::StatusOr<v1::ArtifactRef> GrpcArtifacts::Upload(const std::filesystem::path& path) {
  return UploadFile(connections_, path, Options());
}

absl::Status GrpcArtifacts::UploadPart(const v1::PartOf& of, const v1::ArtifactRef& ref,
                                       const std::filesystem::path& path) {
  return gpipe::UploadPart(connections_, of, ref, path, Options());
}

std::optional<std::filesystem::path> GrpcArtifacts::WritableFolder() {
  struct stat info{};
  const std::filesystem::path temporary = folder_ / kTemporaryFolder;
  if (folder_.empty() || stat(temporary.c_str(), &info) != 0) return std::nullopt;
  // The orchestrator could not move what another user has put there.
  if (info.st_uid != geteuid() || access(temporary.c_str(), W_OK | X_OK) != 0) return std::nullopt;
  return folder_;
}

absl::Status GrpcArtifacts::Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) {
  GPIPE_ASSIGN_OR_RETURN(const auto file, Find(ref));
  if (file) return LinkOrCopyFile(*file, path, HardLinks::kNever).status();
  return DownloadFile(connections_, ref, path, Options());
}

absl::Status GrpcArtifacts::Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) {
  GPIPE_ASSIGN_OR_RETURN(const auto file, Find(ref));
  if (!file) return ReadRange(connections_, ref, offset, data, Options());
  GPIPE_RETURN_IF_ERROR(ReadFileRange(*file, offset, data));
  if (on_bytes_) on_bytes_(static_cast<int64_t>(data.size()));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::filesystem::path>> GrpcArtifacts::Find(const v1::ArtifactRef& ref) {
  if (folder_.empty()) return std::nullopt;
  absl::StatusOr<std::filesystem::path> path = FindArtifact(folder_, ref);
  if (absl::IsNotFound(path.status())) return std::nullopt;
  GPIPE_RETURN_IF_ERROR(path.status());
  return *std::move(path);
}

}  // namespace gpipe::worker
