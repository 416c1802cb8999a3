#ifndef GPIPE_COMMON_ARTIFACTS_PARALLEL_FETCH_H_
#define GPIPE_COMMON_ARTIFACTS_PARALLEL_FETCH_H_

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/artifacts/connections.h"
#include "gpipe/v1/worker_session.pb.h"
#include "grpcpp/support/byte_buffer.h"

namespace gpipe {

// A range of a file at the orchestrator on its way here: in parts, one after the other over each connection, so that a
// slow connection gets fewer of them. The threads begin with the object; the destructor stops and joins them.
class ParallelFetch {
 public:
  // Takes bytes of the range, from `offset` in it on. Called by several threads, for different bytes; what is not OK
  // ends the fetch.
  using Sink = std::function<absl::Status(int64_t offset, std::string_view bytes)>;

  // `connections` must outlive this. A range without bytes is asked for, too, up to the file's end: only of an empty
  // file.
  ParallelFetch(ArtifactConnections& connections, v1::ArtifactRef ref, int64_t offset, int64_t length, Sink sink);
  ~ParallelFetch();
  ParallelFetch(const ParallelFetch&) = delete;
  ParallelFetch& operator=(const ParallelFetch&) = delete;

  // The threads end soon; the fetch with CANCELLED.
  void Stop() { stop_.request_stop(); }

  // Waits until all bytes before `end` have gone into the sink, or for so long: then false. What failed first, when
  // something did.
  absl::StatusOr<bool> WaitUntil(int64_t end, absl::Duration patience);

  // Bytes in the sink so far, in whatever order.
  int64_t done() const;

 private:
  void FetchParts(int connection);
  absl::Status FetchPart(int connection, int64_t begin, int64_t end);
  absl::Status Take(int64_t end, const grpc::ByteBuffer& message, int64_t& taken);
  int64_t NextPart();
  void EndPart(int64_t begin, const absl::Status& status);
  void Count(int64_t bytes);

  ArtifactConnections& connections_;
  const v1::ArtifactRef ref_;
  const int64_t offset_;
  const int64_t length_;
  const Sink sink_;
  const int64_t part_bytes_;
  std::stop_source stop_;
  mutable absl::Mutex mutex_;
  int64_t next_ ABSL_GUARDED_BY(mutex_) = 0;  // Where the next part begins.
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<bool> parts_ ABSL_GUARDED_BY(mutex_);  // Which have arrived.
  int64_t contiguous_ ABSL_GUARDED_BY(mutex_) = -1;  // All before it has; -1: not even the first part.
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::jthread> threads_;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_PARALLEL_FETCH_H_
