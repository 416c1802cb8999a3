#include "common/link_or_copy.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/random_id.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kKernelPieceBytes = 1 << 30;

bool MayHardLink(HardLinks hard_links, const struct stat& from) {
  return hard_links == HardLinks::kAlways || (hard_links == HardLinks::kIfOnlyName && from.st_nlink == 1);
}

// False: not between these two places.
bool HardLink(const fs::path& from, const fs::path& to) {
  const std::string name = absl::StrCat(to.string(), ".tmp-", RandomId());
  if (linkat(AT_FDCWD, from.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) return false;
  const bool renamed = rename(name.c_str(), to.c_str()) == 0;
  unlink(name.c_str());  // Renaming to another name of the same file leaves both.
  return renamed;
}

// By the kernel, without a way through our memory. What it has copied when it can no more.
off_t CopyInKernel(int from, int to) {
  off_t done = 0;
  while (true) {
    off_t target = done;
    off_t source = done;
    const ssize_t count = copy_file_range(from, &source, to, &target, kKernelPieceBytes, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return done;
    done += count;
  }
}

absl::Status CopyFrom(int from, const fs::path& path, off_t offset, AtomicFile& to) {
  std::string piece(kPieceBytes, '\0');
  ssize_t count;
  while ((count = pread(from, piece.data(), piece.size(), offset)) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot read", path);
    GPIPE_RETURN_IF_ERROR(to.WriteAt(offset, std::string_view(piece.data(), static_cast<size_t>(count))));
    offset += count;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LinkKind> LinkOrCopyFile(const fs::path& from, const fs::path& to, HardLinks hard_links) {
  const int fd = open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // Opening a pipe would wait for a writer.
  if (fd < 0) return ErrnoStatus(errno, "cannot open", from);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  struct stat found;
  if (fstat(fd, &found) != 0) return ErrnoStatus(errno, "cannot read", from);
  if (!S_ISREG(found.st_mode)) return absl::InvalidArgumentError(absl::StrCat(from.string(), ": is no regular file"));
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(to));
  const bool reflinked = ioctl(file.fd(), FICLONE, fd) == 0;
  if (!reflinked && MayHardLink(hard_links, found) && HardLink(from, to)) return LinkKind::kHardLink;
  if (!reflinked) GPIPE_RETURN_IF_ERROR(CopyFrom(fd, from, CopyInKernel(fd, file.fd()), file));
  GPIPE_RETURN_IF_ERROR(file.Publish());
  return reflinked ? LinkKind::kReflink : LinkKind::kCopy;
}

}  // namespace gpipe
