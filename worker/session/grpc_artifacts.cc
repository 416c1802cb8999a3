#include "worker/session/grpc_artifacts.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/artifacts/layout.h"
#include "common/file.h"
#include "common/sha256.h"

namespace gpipe::worker {
namespace {

absl::Status ReadPart(const std::filesystem::path& path, int64_t offset, absl::Span<char> data) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  while (!data.empty()) {
    const ssize_t got = pread(fd, data.data(), data.size(), offset);
    if (got < 0) return ErrnoStatus(errno, "cannot read", path);
    if (got == 0) return absl::DataLossError(absl::StrCat(path.string(), " ends at ", offset));
    data.remove_prefix(static_cast<size_t>(got));
    offset += got;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ArtifactRef> GrpcArtifacts::Upload(const std::filesystem::path& path) {
  return UploadFile(stub_, path);
}

absl::Status GrpcArtifacts::Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) {
  if (const auto file = Find(ref)) {
    std::error_code error;
    std::filesystem::create_hard_link(*file, path, error);
    if (!error) return absl::OkStatus();
  }
  return DownloadFile(stub_, ref, path);
}

absl::Status GrpcArtifacts::Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) {
  if (const auto file = Find(ref)) return ReadPart(*file, offset, data);
  return ReadRange(stub_, ref, offset, data);
}

std::optional<std::filesystem::path> GrpcArtifacts::Find(const v1::ArtifactRef& ref) const {
  if (folder_.empty() || !IsSha256(ref.sha256())) return std::nullopt;
  std::filesystem::path path = ArtifactPath(folder_, ref.sha256());
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error || static_cast<int64_t>(size) != ref.size()) return std::nullopt;
  return path;
}

}  // namespace gpipe::worker
