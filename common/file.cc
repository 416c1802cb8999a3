#include "common/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::StatusCode::kNotFound;
    case ENOSPC:
    case EDQUOT:
      return absl::StatusCode::kResourceExhausted;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    default:
      return absl::StatusCode::kInternal;
  }
}

std::filesystem::path FolderOf(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

}  // namespace

absl::Status ErrnoStatus(int error, std::string_view doing, const std::filesystem::path& path) {
  const absl::StatusCode code = CodeOf(error);
  const char* what = code == absl::StatusCode::kResourceExhausted ? "disk full" : std::strerror(error);
  const absl::Status status(code, absl::StrCat(std::string(doing), " ", path.string(), ": ", what));
  return absl::IsResourceExhausted(status) ? WithReason(status, reason::kDiskFull) : status;
}

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, size_t most) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  std::string content;
  char buffer[1 << 16];
  ssize_t count;
  const auto next = [&] { return read(fd, buffer, std::min(sizeof buffer, most - content.size())); };
  while ((count = next()) > 0) content.append(buffer, static_cast<size_t>(count));
  const int error = errno;
  close(fd);
  if (count < 0) return ErrnoStatus(error, "cannot read", path);
  return content;
}

absl::Status SyncPath(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : ErrnoStatus(error, "cannot sync", path);
}

absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content) {
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  GPIPE_RETURN_IF_ERROR(file.Append(content));
  return file.Commit();
}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored)) {
    // Nothing of its kind would be left: /dev/null, say.
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": is there and is not a regular file"));
  }
  std::string temporary = path.string() + ".tmp-XXXXXX";
  const int fd = mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", path);
  fchmod(fd, 0644);
  return AtomicFile(path, temporary, fd);
}

AtomicFile::AtomicFile(std::filesystem::path path, std::filesystem::path temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::move(other.temporary_)), fd_(std::exchange(other.fd_, -1)) {}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  if (this == &other) return *this;
  Discard();
  path_ = std::move(other.path_);
  temporary_ = std::move(other.temporary_);
  fd_ = std::exchange(other.fd_, -1);
  return *this;
}

AtomicFile::~AtomicFile() { Discard(); }

void AtomicFile::Discard() {
  if (fd_ < 0) return;
  close(std::exchange(fd_, -1));
  unlink(temporary_.c_str());
}

absl::Status AtomicFile::Append(std::string_view data) {
  struct stat stat = {};
  if (fd_ >= 0 && fstat(fd_, &stat) != 0) return ErrnoStatus(errno, "cannot look at", path_);
  return WriteAt(static_cast<uint64_t>(stat.st_size), data);
}

absl::Status AtomicFile::WriteAt(uint64_t offset, std::string_view data) {
  if (fd_ < 0) return absl::FailedPreconditionError(absl::StrCat(path_.string(), " is committed already"));
  while (!data.empty()) {
    const ssize_t count = pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot write", path_);
    data.remove_prefix(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  if (fd_ >= 0 && fsync(fd_) != 0) return ErrnoStatus(errno, "cannot sync", path_);
  GPIPE_RETURN_IF_ERROR(Publish());
  return SyncPath(FolderOf(path_));  // The rename is durable only when the folder is synced too.
}

absl::Status AtomicFile::Publish() {
  if (fd_ < 0) return absl::FailedPreconditionError(absl::StrCat(path_.string(), " is committed already"));
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "cannot rename to", path_);
  close(std::exchange(fd_, -1));
  return absl::OkStatus();
}

absl::StatusOr<TemporaryFolder> TemporaryFolder::Create(std::string_view prefix) {
  std::error_code error;
  const std::filesystem::path base = std::filesystem::temp_directory_path(error);
  if (error) return absl::NotFoundError(absl::StrCat("no temporary folder: ", error.message()));
  std::string pattern = (base / (std::string(prefix) + "-XXXXXX")).string();
  if (mkdtemp(pattern.data()) == nullptr) return ErrnoStatus(errno, "cannot create", pattern);
  return TemporaryFolder(pattern);
}

TemporaryFolder::TemporaryFolder(std::filesystem::path path) : path_(std::move(path)) {}

TemporaryFolder::TemporaryFolder(TemporaryFolder&& other) noexcept
    : path_(std::exchange(other.path_, {})), kept_(other.kept_) {}

TemporaryFolder& TemporaryFolder::operator=(TemporaryFolder&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(kept_, other.kept_);
  return *this;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path_.empty() && !kept_) std::filesystem::remove_all(path_, ignored);
}

}  // namespace gpipe
