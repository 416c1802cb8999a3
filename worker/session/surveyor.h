#ifndef GPIPE_WORKER_SESSION_SURVEYOR_H_
#define GPIPE_WORKER_SESSION_SURVEYOR_H_

#include <thread>

#include "common/bounded_queue.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/data/shared_files.h"
#include "worker/engine/message_sink.h"

namespace gpipe::worker {

// Answers Survey on a thread of its own: a shared folder may be slow, and an inspection before it long.
class Surveyor {
 public:
  // `sink` must outlive the surveyor.
  Surveyor(SharedFiles shared, MessageSink& sink);
  // Finishes the request under way, drops the others, joins.
  ~Surveyor();

  // Queues the request; with too many waiting it is answered UNAVAILABLE. Any thread.
  void Enqueue(v1::Survey request);

 private:
  void Loop();
  void Answer(v1::Surveyed surveyed);

  const SharedFiles shared_;
  MessageSink& sink_;
  BoundedQueue<v1::Survey> requests_{16};
  std::thread thread_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_SURVEYOR_H_
