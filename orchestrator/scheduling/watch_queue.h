#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_WATCH_QUEUE_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_WATCH_QUEUE_H_

#include <deque>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "orchestrator/scheduling/delivery.h"
#include "orchestrator/scheduling/update_ring.h"

namespace gpipe::orchestrator {

// Updates on their way to one watcher of a job; all watchers share them. A slow watcher misses steps, what stages did,
// cycles and activities, the oldest first, and is told how many; the rest always arrives, unless it is so slow that the
// watch is ended. Any thread may call any method.
class WatchQueue {
 public:
  static constexpr size_t kMaxUpdates = 256;    // Those are dropped beyond.
  static constexpr size_t kMaxRetained = 4096;  // The watch ends beyond.

  // The next update, or null and the end of the watch.
  using Deliver = Delivery<JobUpdate>::Function;

  // What is sent to those only who ask for it.
  struct Wants {
    bool cycles = false;
    bool stages = false;
  };

  explicit WatchQueue(const Wants& wants) : wants_(wants) {}
  const Wants& wants() const { return wants_; }

  // Calls `deliver` once, with the next update or the end, now or from the thread that pushes or closes.
  // REQUIRES: the last `deliver` was called; it was not told the end.
  void Next(Deliver deliver);

  // What the watcher has missed before it came, all of it, however slow it is. Before the first Push.
  void Prime(const std::vector<JobUpdate>& missed);
  // Nothing, of a kind that the watcher does not want.
  void Push(JobUpdate update);
  // No more updates. The watcher still gets those that wait.
  void Close(const absl::Status& end);
  // The watcher does not want any more.
  void Abandon();
  bool closed() const;

 private:
  bool Wanted(const v1::WatchJobResponse& update) const;
  Delivery<JobUpdate> Match() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Wants wants_;
  mutable absl::Mutex mutex_;
  std::deque<JobUpdate> missed_ ABSL_GUARDED_BY(mutex_);  // Before updates_.
  std::deque<JobUpdate> updates_ ABSL_GUARDED_BY(mutex_);
  Deliver waiting_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_WATCH_QUEUE_H_
