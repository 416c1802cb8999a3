#ifndef GPIPE_COMMON_ARTIFACTS_FILE_STAMP_H_
#define GPIPE_COMMON_ARTIFACTS_FILE_STAMP_H_

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <istream>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace gpipe {

// What the system keeps about a file beside its content. While all of it stays the same, so does the content: writing
// sets both times, and the second one cannot be set back by a program. Only two writes within one tick of the file
// system's clock look alike, which matters to what is remembered (IsRecent).
struct FileStamp {
  int64_t size = 0;
  int64_t modified_nanos = 0;
  int64_t changed_nanos = 0;
  uint64_t inode = 0;

  bool operator==(const FileStamp&) const = default;
};

FileStamp StampOf(const struct stat& info);

// Of the regular file that the path leads to. NOT_FOUND and PERMISSION_DENIED name it; INVALID_ARGUMENT for a folder.
absl::StatusOr<FileStamp> StampOf(const std::filesystem::path& path);

// The file was changed so shortly before `now` that a change right after would not show.
bool IsRecent(const FileStamp& stamp, absl::Time now);

// Four numbers with spaces between them, and back. Reading leaves the stream failed when they are not there.
std::string ToText(const FileStamp& stamp);
std::istream& operator>>(std::istream& text, FileStamp& stamp);

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_FILE_STAMP_H_
