#ifndef GPIPE_COMMON_FILE_LOCK_H_
#define GPIPE_COMMON_FILE_LOCK_H_

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"

namespace gpipe {

// Keeps other processes out of a folder for as long as it lives. The kernel gives it up when the process ends, however
// it ends; the file stays, and means nothing by itself.
class FileLock {
 public:
  // FAILED_PRECONDITION at once when another process holds it, with that process's id if it can be read.
  static absl::StatusOr<std::unique_ptr<FileLock>> Acquire(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_FILE_LOCK_H_
