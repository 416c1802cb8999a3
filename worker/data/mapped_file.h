#ifndef GPIPE_WORKER_DATA_MAPPED_FILE_H_
#define GPIPE_WORKER_DATA_MAPPED_FILE_H_

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace gpipe::worker {

// A whole file mapped read-only, whose pages are read when they are used. Any thread may read.
class MappedFile {
 public:
  // `name` is what messages call the file.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::filesystem::path& path, std::string name);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const char* data() const { return data_; }
  uint64_t size() const { return size_; }

  // FAILED_PRECONDITION when the file is not as it was at Open: a page behind its new end would end the process, and
  // others would mix old data with new.
  absl::Status CheckUnchanged() const;

  // Begins to read a range that will be used soon, so that the disk gets all ranges of a mini-batch at once.
  void WillNeed(uint64_t begin, uint64_t bytes) const;

 private:
  MappedFile(std::filesystem::path path, std::string name, const struct stat& opened, void* data);

  // By its path, so that thousands of files need no descriptor each.
  const std::filesystem::path path_;
  const std::string name_;
  const uint64_t size_;
  const timespec modified_;
  const char* const data_;  // Null: the file is empty.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_MAPPED_FILE_H_
