#ifndef GPIPE_WORKER_ENGINE_MESSAGE_SINK_H_
#define GPIPE_WORKER_ENGINE_MESSAGE_SINK_H_

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::worker {

// The way to the orchestrator. Any thread may call any method.
class MessageSink {
 public:
  virtual ~MessageSink() = default;

  // Queues the message; waits while the queue is full. Without a session the message is dropped: what it belongs to is
  // over by then.
  virtual void Send(v1::WorkerMessage message) = 0;

  // The activity entered another phase and should be sent soon. Cheap; never blocks.
  virtual void ActivityChanged() = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_MESSAGE_SINK_H_
