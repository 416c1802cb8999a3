#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_WATCH_QUEUE_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_WATCH_QUEUE_H_

#include <deque>
#include <functional>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::orchestrator {

// Updates on their way to one watcher of a job. A slow watcher misses steps, cycles and activities, the oldest first,
// and is told how many; the rest always arrives, unless it is so slow that the watch is ended. Any thread may call any
// method.
class WatchQueue {
 public:
  static constexpr size_t kMaxUpdates = 256;    // Those are dropped beyond.
  static constexpr size_t kMaxRetained = 4096;  // The watch ends beyond.

  // The next update, or the end of the watch.
  using Deliver = std::function<void(std::optional<v1::WatchJobResponse> update, const absl::Status& end)>;

  explicit WatchQueue(bool cycles) : cycles_(cycles) {}
  bool wants_cycles() const { return cycles_; }

  // Calls `deliver` once, with the next update or the end, now or from the thread that pushes or closes.
  // REQUIRES: the last `deliver` was called; it was not told the end.
  void Next(Deliver deliver);

  void Push(const v1::WatchJobResponse& update);
  // No more updates. The watcher still gets those that wait.
  void Close(const absl::Status& end);
  // The watcher does not want any more.
  void Abandon();
  bool closed() const;

 private:
  struct Delivery {
    Deliver deliver;
    std::optional<v1::WatchJobResponse> update;
    absl::Status end;
    void Run() const {
      if (deliver) deliver(update, end);
    }
  };

  Delivery Match() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const bool cycles_;
  mutable absl::Mutex mutex_;
  std::deque<v1::WatchJobResponse> updates_ ABSL_GUARDED_BY(mutex_);
  Deliver waiting_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_WATCH_QUEUE_H_
