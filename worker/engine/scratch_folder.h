#ifndef GPIPE_WORKER_ENGINE_SCRATCH_FOLDER_H_
#define GPIPE_WORKER_ENGINE_SCRATCH_FOLDER_H_

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/statusor.h"
#include "common/file.h"

namespace gpipe::worker {

// An empty folder at a given place, removed with all its content by the destructor. What was there before is removed.
class ScratchFolder {
 public:
  static absl::StatusOr<ScratchFolder> Create(std::filesystem::path path) {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (!error) std::filesystem::create_directories(path, error);
    if (error) return ErrnoStatus(error.value(), "creating", path);
    return ScratchFolder(std::move(path));
  }
  ScratchFolder(ScratchFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchFolder& operator=(ScratchFolder&&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const { return path_; }

 private:
  explicit ScratchFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_SCRATCH_FOLDER_H_
