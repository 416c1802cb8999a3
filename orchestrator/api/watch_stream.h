#ifndef GPIPE_ORCHESTRATOR_API_WATCH_STREAM_H_
#define GPIPE_ORCHESTRATOR_API_WATCH_STREAM_H_

#include <atomic>
#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/job_book.h"

namespace gpipe::orchestrator {

// How many watches are open, of all jobs together: each keeps memory, also one whose client does not read and whose job
// is over. Any thread.
class WatchCount {
 public:
  static constexpr size_t kMost = 10'000;

  // False: there are as many as there may be, and this one is not counted.
  bool Enter() {
    if (open_.fetch_add(1) < kMost) return true;
    Leave();
    return false;
  }
  void Leave() { open_.fetch_sub(1); }

 private:
  std::atomic<size_t> open_ = 0;
};

// One WatchJob call: writes what its queue holds, one update at a time. Deletes itself when the call is over.
class WatchStream final : public grpc::ServerWriteReactor<v1::WatchJobResponse> {
 public:
  // All must outlive the server.
  WatchStream(EventLoop* loop, JobBook* book, WatchCount* watches, const v1::WatchJobRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Next();
  absl::Status Begin(const v1::WatchJobRequest& request);

  EventLoop* const loop_;
  JobBook* const book_;
  WatchCount* const watches_;
  const bool counted_;
  const std::string id_;
  const std::shared_ptr<WatchQueue> queue_;
  JobUpdate update_;  // Being written.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_WATCH_STREAM_H_
