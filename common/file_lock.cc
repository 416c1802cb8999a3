#include "common/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe {
namespace {

absl::Status HeldByAnother(int fd, const std::filesystem::path& path) {
  char text[32];
  ssize_t length = pread(fd, text, sizeof(text), 0);
  absl::string_view pid = absl::StripAsciiWhitespace(absl::string_view(text, length > 0 ? length : 0));
  return absl::FailedPreconditionError(absl::StrCat(path.parent_path().string(), " is in use by another process",
                                                    pid.empty() ? "" : absl::StrCat(" (process ", pid, ")"),
                                                    ", which holds the lock file ", path.string()));
}

// For whoever finds the lock held. Only information, so a failure is not one of the lock.
void WriteOwnPid(int fd) {
  std::string text = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) == 0) (void)!pwrite(fd, text.data(), text.size(), 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Acquire(const std::filesystem::path& path) {
  int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot open the lock file", path);
  auto lock = std::unique_ptr<FileLock>(new FileLock(fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return HeldByAnother(fd, path);
    return ErrnoStatus(errno, "cannot lock", path);
  }
  WriteOwnPid(fd);
  return lock;
}

FileLock::~FileLock() { close(fd_); }

}  // namespace gpipe
