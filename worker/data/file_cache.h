#ifndef GPIPE_WORKER_DATA_FILE_CACHE_H_
#define GPIPE_WORKER_DATA_FILE_CACHE_H_

#include <cstdint>
#include <filesystem>
#include <list>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "worker/data/artifacts.h"

namespace gpipe::worker {

// Files fetched from the orchestrator, by content: a folder with one file per SHA-256. Files that no attempt uses are
// removed, longest unused first, when the total exceeds the limit. Used by the engine's thread only.
class FileCache {
 public:
  // Uses `folder`, which exists, and removes what an earlier process left there. `artifacts` must outlive the cache.
  static absl::StatusOr<FileCache> Create(std::filesystem::path folder, int64_t limit_bytes, Artifacts& artifacts);

  // A local file with that content, good until ReleaseAll: one that was fetched, or one that is on this machine anyway
  // and is used where it is. INVALID_ARGUMENT when `ref` is no reference.
  absl::StatusOr<std::filesystem::path> Fetch(const v1::ArtifactRef& ref);

  // The attempt is over: all files may go when room is needed.
  void ReleaseAll();

  int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    std::string sha256;
    int64_t size = 0;
    bool used = false;
  };

  FileCache(std::filesystem::path folder, int64_t limit_bytes, Artifacts& artifacts)
      : folder_(std::move(folder)), limit_bytes_(limit_bytes), artifacts_(&artifacts) {}

  // Removes unused files until `room` more bytes fit, or nothing unused is left.
  void Evict(int64_t room);

  std::filesystem::path folder_;
  int64_t limit_bytes_;
  Artifacts* artifacts_;
  std::list<Entry> entries_;  // Last used first.
  int64_t bytes_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_FILE_CACHE_H_
