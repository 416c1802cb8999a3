#ifndef GPIPE_ORCHESTRATOR_CLUSTER_WORKER_CHANNEL_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_WORKER_CHANNEL_H_

#include "absl/status/status.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// The outgoing half of one worker's session. Called by the loop's thread.
class WorkerChannel {
 public:
  virtual ~WorkerChannel() = default;

  // Queues the message. A worker that takes none for so long that the queue is full has its session cancelled.
  virtual void Send(const v1::OrchestratorMessage& message) = 0;
  // Ends the session with `status` once what was sent is out.
  virtual void Close(const absl::Status& status) = 0;
  // Ends it at once; for a worker that does not read any more.
  virtual void Cancel(const absl::Status& status) = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_WORKER_CHANNEL_H_
