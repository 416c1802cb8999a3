#ifndef GPIPE_WORKER_SESSION_OUTBOX_H_
#define GPIPE_WORKER_SESSION_OUTBOX_H_

#include <cstddef>
#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/steady_signal.h"
#include "worker/engine/message_sink.h"

namespace gpipe::worker {

// Messages on their way to the session's writer: a bounded queue that joins what can be joined. Open during a session;
// what is sent without one is dropped. Any thread may call Send and ActivityChanged, the session's threads the rest.
class Outbox : public MessageSink {
 public:
  explicit Outbox(size_t capacity = 256) : capacity_(capacity) {}

  // Waits while full. A Progress that follows an unsent one of the same attempt is joined to it.
  void Send(v1::WorkerMessage message) override;
  void ActivityChanged() override;
  // As Send, but never waits, and has room in any case: for what its sender bounds. A Log that follows an unsent one of
  // the same attempt is joined to it. Any thread.
  void Post(v1::WorkerMessage message);

  // A session begins, with nothing to send; it ends, and every waiter wakes.
  void Open();
  void Close();

  // What the writer has to do next.
  struct Next {
    bool closed = false;
    bool activity_changed = false;             // Since the last TakeActivityChange.
    std::optional<v1::WorkerMessage> message;  // Taken out of the queue.
  };
  // Waits for a message, a change of activity not yet known to the caller, or the end of the session, for so long.
  Next Wait(absl::Duration timeout, bool knows_of_change);
  void TakeActivityChange();

 private:
  bool JoinLocked(v1::WorkerMessage& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What there is to do now; nullopt while there is nothing.
  std::optional<Next> Take(bool knows_of_change);
  bool HasRoomOrClosed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !open_ || queue_.size() < capacity_; }

  const size_t capacity_;
  const SteadyClock clock_;
  SteadySignal changed_;
  absl::Mutex mutex_;
  std::deque<v1::WorkerMessage> queue_ ABSL_GUARDED_BY(mutex_);
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool activity_changed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_OUTBOX_H_
