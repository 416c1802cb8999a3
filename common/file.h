#ifndef GPIPE_COMMON_FILE_H_
#define GPIPE_COMMON_FILE_H_

#include <filesystem>
#include <limits>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace gpipe {

// A failed system call as a status that names the path: ENOENT is NOT_FOUND, ENOSPC and EDQUOT RESOURCE_EXHAUSTED
// ("disk full"), EACCES and EROFS PERMISSION_DENIED, the rest INTERNAL.
absl::Status ErrnoStatus(int error, std::string_view doing, const std::filesystem::path& path);

// The file's content, of which no more than the first `most` bytes are read.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     size_t most = std::numeric_limits<size_t>::max());

// Makes what was written to a file, or the names in a folder, survive a power cut.
absl::Status SyncPath(const std::filesystem::path& path);

// Written to a temporary name beside it, synced, renamed, folder synced: after a crash either the old or the new
// content is there, whole.
absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content);

// A file being written in pieces, with the same promise: it appears under its name at Commit, or never.
// Move-only; the destructor removes an uncommitted file. Not for use by two threads at once, but for WriteAt.
class AtomicFile {
 public:
  static absl::StatusOr<AtomicFile> Create(const std::filesystem::path& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();

  // Writes at the end.
  absl::Status Append(std::string_view data);
  // Writes at `offset`, which may lie beyond the end. Several threads may do so at different places.
  absl::Status WriteAt(uint64_t offset, std::string_view data);
  // Syncs and renames. The object is empty afterwards.
  absl::Status Commit();
  // Renames only: whole for every reader, but a power cut may still take it.
  absl::Status Publish();
  // For what only the kernel does: sharing or copying another file's blocks. Not to be closed.
  int fd() const { return fd_; }

 private:
  AtomicFile(std::filesystem::path path, std::filesystem::path temporary, int fd);
  void Discard();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
};

// A folder under the system's temporary folder, removed with all its content by the destructor.
class TemporaryFolder {
 public:
  static absl::StatusOr<TemporaryFolder> Create(std::string_view prefix);
  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&& other) noexcept;
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }
  // The destructor leaves it then.
  void Keep() { kept_ = true; }

 private:
  explicit TemporaryFolder(std::filesystem::path path);
  std::filesystem::path path_;
  bool kept_ = false;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_FILE_H_
