#ifndef GPIPE_WORKER_DATA_RANGE_CACHE_H_
#define GPIPE_WORKER_DATA_RANGE_CACHE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <stop_token>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/data/artifacts.h"

namespace gpipe::worker {

// Artifacts whose ranges, once read over the network, are kept on this worker's disk, so that the next attempt of a job
// finds its stage's weights here. A file with holes per artifact; when all together exceed the limit, the ones that
// were not read for the longest time go first. What is on this machine anyway is read where it is. A disk that does
// not take them is no failure: they are fetched again. Used by the engine's thread only.
class RangeCache : public Artifacts {
 public:
  // Uses `folder`, which it makes, and removes what an earlier process left there. `artifacts` must outlive the cache.
  static absl::StatusOr<RangeCache> Create(std::filesystem::path folder, int64_t limit_bytes, Artifacts& artifacts);

  void Attend(std::stop_token stop, std::function<void(int64_t bytes)> on_bytes) override;
  absl::StatusOr<v1::ArtifactRef> Upload(const std::filesystem::path& path) override;
  absl::Status UploadPart(const v1::PartOf& of, const v1::ArtifactRef& ref, const std::filesystem::path& path) override;
  std::optional<std::filesystem::path> WritableFolder() override { return artifacts_->WritableFolder(); }
  absl::StatusOr<std::optional<std::filesystem::path>> Find(const v1::ArtifactRef& ref) override;
  absl::Status Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) override;
  absl::Status Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) override;

  int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    std::string sha256;
    std::map<int64_t, int64_t> ranges;  // Begin to end; apart from each other.
    int64_t bytes = 0;
  };

  RangeCache(std::filesystem::path folder, int64_t limit_bytes, Artifacts& artifacts)
      : folder_(std::move(folder)), limit_bytes_(limit_bytes), artifacts_(&artifacts) {}

  // The entry of that content, now the last used one.
  Entry& Use(const std::string& sha256);
  bool ReadKept(const Entry& entry, int64_t offset, absl::Span<char> data) const;
  void Keep(Entry& entry, int64_t offset, absl::Span<const char> data);
  void Add(Entry& entry, int64_t begin, int64_t end);
  // Removes the longest unused entries but the first until `room` more bytes fit.
  void Evict(int64_t room);

  std::filesystem::path folder_;
  int64_t limit_bytes_;
  Artifacts* artifacts_;
  std::function<void(int64_t)> on_bytes_;
  std::list<Entry> entries_;  // Last used first.
  int64_t bytes_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_RANGE_CACHE_H_
