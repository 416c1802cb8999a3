#include "worker/exported/artifact_reader.h"

#include <algorithm>

namespace gpipe::worker {
namespace {

constexpr size_t kBlockBytes = 1 << 16;

}  // namespace

size_t ArtifactReader::read(uint64_t position, void* buffer, size_t count, const char* /*what*/) const {
  if (position >= size()) return 0;
  absl::Span<char> wanted(static_cast<char*>(buffer), std::min<size_t>(count, size() - position));
  const size_t total = wanted.size();
  const size_t taken = TakeFromBlock(position, wanted);
  wanted.remove_prefix(taken);
  position += taken;
  if (wanted.size() >= kBlockBytes) return Fetch(position, wanted) ? total : taken;
  if (wanted.empty()) return total;
  block_.resize(std::min<size_t>(kBlockBytes, size() - position));
  block_begin_ = position;
  if (!Fetch(position, absl::MakeSpan(block_))) {
    block_.clear();
    return taken;
  }
  return taken + TakeFromBlock(position, wanted);
}

size_t ArtifactReader::TakeFromBlock(uint64_t position, absl::Span<char> wanted) const {
  if (position < block_begin_ || position >= block_begin_ + block_.size()) return 0;
  return block_.copy(wanted.data(), wanted.size(), position - block_begin_);
}

bool ArtifactReader::Fetch(uint64_t position, absl::Span<char> data) const {
  const absl::Status status = artifacts_.Read(ref_, static_cast<int64_t>(position), data);
  if (status_.ok()) status_ = status;
  return status.ok();
}

}  // namespace gpipe::worker
