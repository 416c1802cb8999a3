#ifndef GPIPE_WORKER_WORK_FOLDER_H_
#define GPIPE_WORKER_WORK_FOLDER_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/file.h"
#include "common/file_lock.h"

namespace gpipe::worker {

// The folder a worker keeps its files in, locked while it lives.
class WorkFolder {
 public:
  // With an empty `parent` a private folder in the system's temporary folder, removed by the destructor; those of
  // workers that did not live to remove theirs are removed first. Otherwise `<parent>/<name>`, because workers may
  // share a parent; FAILED_PRECONDITION when another process uses it.
  static absl::StatusOr<WorkFolder> Create(const std::filesystem::path& parent, const std::string& name);

  const std::filesystem::path& path() const { return path_; }

 private:
  WorkFolder() = default;

  std::optional<TemporaryFolder> temporary_;
  std::filesystem::path path_;
  std::unique_ptr<FileLock> lock_;  // Given up before the folder goes.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_WORK_FOLDER_H_
