#ifndef GPIPE_ORCHESTRATOR_API_WATCH_STREAM_H_
#define GPIPE_ORCHESTRATOR_API_WATCH_STREAM_H_

#include <memory>

#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/job_book.h"

namespace gpipe::orchestrator {

// One WatchJob call: writes what its queue holds, one update at a time. Deletes itself when the call is over.
class WatchStream final : public grpc::ServerWriteReactor<v1::WatchJobResponse> {
 public:
  // Both must outlive the server.
  WatchStream(EventLoop* loop, JobBook* book, const v1::WatchJobRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Next();

  EventLoop* const loop_;
  JobBook* const book_;
  const std::string id_;
  const std::shared_ptr<WatchQueue> queue_;
  v1::WatchJobResponse update_;  // Being written.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_WATCH_STREAM_H_
