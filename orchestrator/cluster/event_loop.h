#ifndef GPIPE_ORCHESTRATOR_CLUSTER_EVENT_LOOP_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_EVENT_LOOP_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/steady_signal.h"

namespace gpipe::orchestrator {

// The one thread that owns all of the orchestrator's state: it runs closures and timers in order, in batches. The
// changes of a batch are stored together, and what it announces (answers, messages to workers) leaves after they are.
//
// Post, TryPost and Stop: any thread. The rest: the thread in Run or RunPending, and before the first of these.
class EventLoop {
 public:
  using Task = std::function<void()>;
  // Gets the result of storing the batch.
  using Effect = std::function<void(const absl::Status& stored)>;
  using TimerId = uint64_t;

  // How a batch's changes are stored: one transaction. A failure of either ends the batch with that status.
  struct Transaction {
    std::function<absl::Status()> begin;
    std::function<absl::Status()> commit;
  };

  // `capacity` bounds TryPost. `clock` must outlive the loop.
  EventLoop(const Clock* clock, size_t capacity, Transaction transaction);
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // For what clients ask. False, and the task is dropped, when the queue is full or the loop has stopped.
  bool TryPost(Task task);
  // For what must not be lost. Its senders are bounded by themselves: each session and each background task has at most
  // one such task under way. False only when the loop has stopped.
  bool Post(Task task);

  TimerId PostAfter(absl::Duration delay, Task task);
  // A timer that has run or was cancelled is ignored.
  void CancelTimer(TimerId id);

  // Runs once the current batch is stored, or could not be. In order of calling.
  void AfterCommit(Effect effect);

  // Until Stop: runs what is posted and due. What is left in the queue then is run; timers are dropped.
  void Run();
  // Ends Run. Later posts are refused.
  void Stop();

  // Runs what is posted and due now, until nothing is. Instead of Run, for tests with a clock of their own.
  void RunPending();

  absl::Time Now() const { return clock_->Now(); }

 private:
  static constexpr size_t kMaxBatch = 256;

  bool Enqueue(Task task, size_t limit);
  bool HasWorkOrStopped() {
    absl::MutexLock lock(&mutex_);
    return stopped_ || !queue_.empty();
  }
  std::vector<Task> WaitForTasks();
  std::vector<Task> TakeTasks();
  void TakeDueTimers(std::vector<Task>& tasks);
  void RunBatch(const std::vector<Task>& tasks);

  const Clock* const clock_;
  const size_t capacity_;
  const Transaction transaction_;

  // The loop's thread only.
  std::map<std::pair<absl::Time, TimerId>, Task> timers_;
  std::map<TimerId, absl::Time> timer_times_;
  TimerId next_timer_ = 1;
  std::vector<Effect> effects_;

  SteadySignal changed_;
  absl::Mutex mutex_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_EVENT_LOOP_H_
