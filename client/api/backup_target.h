#ifndef GPIPE_CLIENT_API_BACKUP_TARGET_H_
#define GPIPE_CLIENT_API_BACKUP_TARGET_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace gpipe::client {

// Where a backup is written, one file after the other. Used by one thread. What was not committed is removed by the
// destructor.
class BackupTarget {
 public:
  virtual ~BackupTarget() = default;
  // `path` is relative and without `..`; exactly `size` bytes are appended next.
  virtual absl::Status Begin(const std::string& path, int64_t size) = 0;
  virtual absl::Status Append(std::string_view data) = 0;
  // Puts all under its name, and makes it last.
  virtual absl::Status Commit() = 0;
};

// INVALID_ARGUMENT: `path` is there, and not an empty folder.
absl::StatusOr<std::unique_ptr<BackupTarget>> MakeFolderTarget(const std::filesystem::path& path);
// An archive in the format of POSIX's tar (ustar), sizes from 8 GiB on as GNU's writes them.
absl::StatusOr<std::unique_ptr<BackupTarget>> MakeTarTarget(const std::filesystem::path& path);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_BACKUP_TARGET_H_
