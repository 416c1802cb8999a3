#include "worker/data/file_range.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"

namespace gpipe::worker {

absl::Status ReadFileRange(const std::filesystem::path& path, int64_t offset, absl::Span<char> data) {
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

}  // namespace gpipe::worker
