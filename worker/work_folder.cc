#include "worker/work_folder.h"

#include <string_view>
#include <system_error>

#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

constexpr std::string_view kPrefix = "gpipe-worker";
constexpr const char* kLockName = "lock";

// Removes a folder whose worker is gone. One without a lock file may be about to get it.
void RemoveIfAbandoned(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder / kLockName, ignored)) return;
  const absl::StatusOr<std::unique_ptr<FileLock>> lock = FileLock::Acquire(folder / kLockName);
  if (lock.ok()) std::filesystem::remove_all(folder, ignored);
}

void RemoveAbandonedFolders() {
  std::error_code error;
  const std::filesystem::path base = std::filesystem::temp_directory_path(error);
  if (error) return;
  for (const auto& entry : std::filesystem::directory_iterator(base, error)) {
    if (entry.path().filename().string().starts_with(kPrefix)) RemoveIfAbandoned(entry.path());
  }
}

}  // namespace

absl::StatusOr<WorkFolder> WorkFolder::Create(const std::filesystem::path& parent, const std::string& name) {
  WorkFolder folder;
  if (parent.empty()) {
    RemoveAbandonedFolders();
    GPIPE_ASSIGN_OR_RETURN(folder.temporary_, TemporaryFolder::Create(kPrefix));
    folder.path_ = folder.temporary_->path();
  } else {
    folder.path_ = std::filesystem::absolute(parent) / name;
    std::error_code error;
    std::filesystem::create_directories(folder.path_, error);
    if (error) return ErrnoStatus(error.value(), "cannot create", folder.path_);
  }
  GPIPE_ASSIGN_OR_RETURN(folder.lock_, FileLock::Acquire(folder.path_ / kLockName));
  return folder;
}

}  // namespace gpipe::worker
