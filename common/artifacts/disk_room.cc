#include "common/artifacts/disk_room.h"

#include <fcntl.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/file.h"

namespace gpipe {
namespace {

int64_t Mebibytes(int64_t bytes) { return bytes >> 20; }

}  // namespace

absl::Status CheckRoom(const std::filesystem::path& folder, int64_t bytes) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error) return absl::OkStatus();  // The write itself will tell.
  const auto free = static_cast<int64_t>(space.available);
  const int64_t kept = DatabaseRoom(static_cast<int64_t>(space.capacity));
  if (bytes <= free - kept) return absl::OkStatus();
  const std::string why =
      absl::StrCat("disk full: ", folder.string(), " has ", Mebibytes(free), " MiB free, of which ", Mebibytes(kept),
                   " stay for the database; a file needs ", Mebibytes(bytes), " MiB");
  return WithReason(absl::ResourceExhaustedError(why), reason::kDiskFull);
}

absl::Status TakeRoom(int fd, const std::filesystem::path& path, int64_t bytes) {
  if (bytes == 0 || fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) == 0) return absl::OkStatus();
  return errno == ENOSPC || errno == EDQUOT ? ErrnoStatus(errno, "cannot take room for", path) : absl::OkStatus();
}

}  // namespace gpipe
