#ifndef GPIPE_WORKER_EXPORTED_ARTIFACT_READER_H_
#define GPIPE_WORKER_EXPORTED_ARTIFACT_READER_H_

#include <caffe2/serialize/read_adapter_interface.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "worker/data/artifacts.h"

namespace gpipe::worker {

// A file at the orchestrator as LibTorch reads an archive: only the bytes that are asked for travel. Used by one
// thread.
class ArtifactReader : public caffe2::serialize::ReadAdapterInterface {
 public:
  // `artifacts` must outlive this.
  ArtifactReader(Artifacts& artifacts, v1::ArtifactRef ref) : artifacts_(artifacts), ref_(std::move(ref)) {}

  size_t size() const override { return static_cast<size_t>(ref_.size()); }
  // Fewer bytes than asked for: the end of the file, or status() says why.
  size_t read(uint64_t position, void* buffer, size_t count, const char* what) const override;

  // Of the first read that failed: LibTorch tells nothing but that one has.
  const absl::Status& status() const { return status_; }

 private:
  size_t TakeFromBlock(uint64_t position, absl::Span<char> wanted) const;
  bool Fetch(uint64_t position, absl::Span<char> data) const;

  Artifacts& artifacts_;
  const v1::ArtifactRef ref_;
  // What follows a small read: headers of records are read by themselves before the small tensor after them.
  mutable std::string block_;
  mutable uint64_t block_begin_ = 0;
  mutable absl::Status status_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_ARTIFACT_READER_H_
