#include "common/artifacts/file_hash.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/artifacts/hash_memory.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = 1 << 20;
// The disk is kept busy with what comes next while this processor hashes.
constexpr off_t kReadAhead = off_t{16} << 20;

absl::StatusOr<std::string> Hash(int fd, const fs::path& path, int64_t size, const TransferOptions& options) {
  Sha256 hash;
  std::string piece(kPieceBytes, '\0');
  off_t offset = 0;
  ssize_t count;
  while ((count = pread(fd, piece.data(), piece.size(), offset)) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot read", path);
    if (options.stop.stop_requested()) return absl::CancelledError("stopped");
    posix_fadvise(fd, offset + kReadAhead, kPieceBytes, POSIX_FADV_WILLNEED);
    hash.Update(std::string_view(piece.data(), static_cast<size_t>(count)));
    offset += count;
    options.Report(FileProgress::Doing::kHashing, path, offset, size);
  }
  return hash.HexDigest();
}

HashedFile MakeHashed(std::string sha256, const FileStamp& stamp) {
  HashedFile file;
  file.ref.set_sha256(std::move(sha256));
  file.ref.set_size(stamp.size);
  file.stamp = stamp;
  return file;
}

}  // namespace

absl::StatusOr<HashedFile> HashFile(const fs::path& path, const TransferOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const FileStamp stamp, StampOf(path));
  if (options.memory != nullptr) {
    if (auto known = options.memory->Find(path, stamp)) return MakeHashed(*std::move(known), stamp);
  }
  const absl::Time begin = absl::Now();
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot read", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  GPIPE_ASSIGN_OR_RETURN(const std::string sha256, Hash(fd, path, stamp.size, options));
  struct stat after{};
  if (fstat(fd, &after) != 0) return ErrnoStatus(errno, "cannot read", path);
  if (StampOf(after) != stamp)
    return absl::AbortedError(absl::StrCat(path.string(), ": was changed while it was read"));
  if (options.memory != nullptr) options.memory->Remember(path, stamp, sha256, begin);
  return MakeHashed(sha256, stamp);
}

}  // namespace gpipe
