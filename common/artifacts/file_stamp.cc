#include "common/artifacts/file_stamp.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/file.h"

namespace gpipe {
namespace {

// The coarsest clock of a file system in use.
constexpr absl::Duration kCoarsestTick = absl::Seconds(2);

}  // namespace

FileStamp StampOf(const struct stat& info) {
  FileStamp stamp;
  stamp.size = info.st_size;
  stamp.modified_nanos = absl::ToUnixNanos(absl::TimeFromTimespec(info.st_mtim));
  stamp.changed_nanos = absl::ToUnixNanos(absl::TimeFromTimespec(info.st_ctim));
  stamp.inode = info.st_ino;
  return stamp;
}

absl::StatusOr<FileStamp> StampOf(const std::filesystem::path& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "cannot read", path);
  if (S_ISDIR(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path.string(), " is a folder"));
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path.string(), " is not a file"));
  return StampOf(info);
}

bool IsRecent(const FileStamp& stamp, absl::Time now) {
  const int64_t newest = std::max(stamp.modified_nanos, stamp.changed_nanos);
  return absl::FromUnixNanos(newest) + kCoarsestTick > now;
}

std::string ToText(const FileStamp& stamp) {
  return absl::StrCat(stamp.size, " ", stamp.modified_nanos, " ", stamp.changed_nanos, " ", stamp.inode);
}

std::istream& operator>>(std::istream& text, FileStamp& stamp) {
  return text >> stamp.size >> stamp.modified_nanos >> stamp.changed_nanos >> stamp.inode;
}

}  // namespace gpipe
