#include "worker/data/range_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

// False: not all of it could be moved. `move` is pread or pwrite.
template <typename Move, typename Byte>
bool MoveAll(Move move, int fd, int64_t offset, absl::Span<Byte> data) {
  while (!data.empty()) {
    const ssize_t count = move(fd, data.data(), data.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    data.remove_prefix(static_cast<size_t>(count));
    offset += count;
  }
  return true;
}

}  // namespace

absl::StatusOr<RangeCache> RangeCache::Create(std::filesystem::path folder, int64_t limit_bytes, Artifacts& artifacts) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (!error) std::filesystem::create_directories(folder, error);
  if (error) return ErrnoStatus(error.value(), "creating", folder);
  return RangeCache(std::move(folder), limit_bytes, artifacts);
}

void RangeCache::Attend(std::stop_token stop, std::function<void(int64_t bytes)> on_bytes) {
  on_bytes_ = on_bytes;
  artifacts_->Attend(std::move(stop), std::move(on_bytes));
}

absl::StatusOr<v1::ArtifactRef> RangeCache::Upload(const std::filesystem::path& path) {
  return artifacts_->Upload(path);
}

absl::Status RangeCache::UploadPart(const v1::PartOf& of, const v1::ArtifactRef& ref,
                                    const std::filesystem::path& path) {
  return artifacts_->UploadPart(of, ref, path);
}

absl::StatusOr<std::optional<std::filesystem::path>> RangeCache::Find(const v1::ArtifactRef& ref) {
  return artifacts_->Find(ref);
}

absl::Status RangeCache::Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) {
  return artifacts_->Download(ref, path);
}

absl::Status RangeCache::Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) {
  GPIPE_ASSIGN_OR_RETURN(const std::optional<std::filesystem::path> here, artifacts_->Find(ref));
  if (here || !IsSha256(ref.sha256())) return artifacts_->Read(ref, offset, data);
  Entry& entry = Use(ref.sha256());
  if (ReadKept(entry, offset, data)) {
    if (on_bytes_) on_bytes_(static_cast<int64_t>(data.size()));
    return absl::OkStatus();
  }
  GPIPE_RETURN_IF_ERROR(artifacts_->Read(ref, offset, data));
  Keep(entry, offset, data);
  return absl::OkStatus();
}

RangeCache::Entry& RangeCache::Use(const std::string& sha256) {
  const auto found = std::ranges::find(entries_, sha256, &Entry::sha256);
  if (found == entries_.end()) {
    entries_.push_front({.sha256 = sha256, .ranges = {}, .bytes = 0});
  } else {
    entries_.splice(entries_.begin(), entries_, found);
  }
  return entries_.front();
}

bool RangeCache::ReadKept(const Entry& entry, int64_t offset, absl::Span<char> data) const {
  const auto after = entry.ranges.upper_bound(offset);
  if (after == entry.ranges.begin()) return false;
  if (std::prev(after)->second < offset + static_cast<int64_t>(data.size())) return false;
  const int fd = open((folder_ / entry.sha256).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  return MoveAll(pread, fd, offset, data);
}

void RangeCache::Keep(Entry& entry, int64_t offset, absl::Span<const char> data) {
  const auto size = static_cast<int64_t>(data.size());
  Evict(size);
  if (bytes_ + size > limit_bytes_) return;
  const int fd = open((folder_ / entry.sha256).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return;
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  if (MoveAll(pwrite, fd, offset, data)) Add(entry, offset, offset + size);
}

void RangeCache::Add(Entry& entry, int64_t begin, int64_t end) {
  auto range = entry.ranges.upper_bound(begin);
  if (range != entry.ranges.begin() && std::prev(range)->second >= begin) --range;
  int64_t known = 0;
  while (range != entry.ranges.end() && range->first <= end) {
    begin = std::min(begin, range->first);
    end = std::max(end, range->second);
    known += range->second - range->first;
    range = entry.ranges.erase(range);
  }
  entry.ranges[begin] = end;
  entry.bytes += end - begin - known;
  bytes_ += end - begin - known;
}

void RangeCache::Evict(int64_t room) {
  while (entries_.size() > 1 && bytes_ + room > limit_bytes_) {
    std::error_code ignored;
    std::filesystem::remove(folder_ / entries_.back().sha256, ignored);
    bytes_ -= entries_.back().bytes;
    entries_.pop_back();
  }
}

}  // namespace gpipe::worker
