#include "worker/data/file_cache.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace gpipe::worker {

absl::StatusOr<FileCache> FileCache::Create(std::filesystem::path folder, int64_t limit_bytes, Artifacts& artifacts) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (!error) std::filesystem::create_directories(folder, error);
  if (error) return ErrnoStatus(error.value(), "creating", folder);
  return FileCache(std::move(folder), limit_bytes, artifacts);
}

absl::StatusOr<std::filesystem::path> FileCache::Fetch(const v1::ArtifactRef& ref) {
  if (ref.shared_path().empty() && (!IsSha256(ref.sha256()) || ref.size() < 0)) {
    return absl::InvalidArgumentError(absl::StrCat("'", ref.sha256(), "' is no content hash"));
  }
  GPIPE_ASSIGN_OR_RETURN(std::optional<std::filesystem::path> here, artifacts_->Find(ref));
  if (here) return *std::move(here);
  const std::filesystem::path path = folder_ / ref.sha256();
  auto entry = std::ranges::find(entries_, ref.sha256(), &Entry::sha256);
  if (entry == entries_.end()) {
    Evict(ref.size());
    GPIPE_RETURN_IF_ERROR(artifacts_->Download(ref, path));
    bytes_ += ref.size();
    entry = entries_.insert(entries_.begin(), {.sha256 = ref.sha256(), .size = ref.size()});
  }
  entry->used = true;
  entries_.splice(entries_.begin(), entries_, entry);
  return path;
}

void FileCache::ReleaseAll() {
  for (Entry& entry : entries_) entry.used = false;
  Evict(0);
}

void FileCache::Evict(int64_t room) {
  for (auto entry = entries_.end(); entry != entries_.begin() && bytes_ + room > limit_bytes_;) {
    --entry;
    if (entry->used) continue;
    std::error_code ignored;
    std::filesystem::remove(folder_ / entry->sha256, ignored);
    bytes_ -= entry->size;
    entry = entries_.erase(entry);
  }
}

}  // namespace gpipe::worker
