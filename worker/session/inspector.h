#ifndef GPIPE_WORKER_SESSION_INSPECTOR_H_
#define GPIPE_WORKER_SESSION_INSPECTOR_H_

#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "common/bounded_queue.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/engine/message_sink.h"

namespace gpipe::worker {

// Answers Inspect on a thread of its own, also while the engine computes.
class Inspector {
 public:
  using Inspect = std::function<v1::Inspected(const v1::Inspect& request)>;

  // `set_up` runs first on the new thread; when it fails, that is the answer to every request. `sink` must outlive the
  // inspector.
  Inspector(std::function<absl::Status()> set_up, Inspect inspect, MessageSink& sink);
  // Finishes the request under way, drops the others, joins.
  ~Inspector();

  // Queues the request; with too many waiting it is answered UNAVAILABLE. Any thread.
  void Enqueue(v1::Inspect request);

 private:
  void Loop();
  void Answer(v1::Inspected inspected);
  void AnswerError(int64_t id, const absl::Status& status);

  const std::function<absl::Status()> set_up_;
  const Inspect inspect_;
  MessageSink& sink_;
  BoundedQueue<v1::Inspect> requests_{16};
  std::thread thread_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_INSPECTOR_H_
