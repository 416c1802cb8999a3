#ifndef GPIPE_WORKER_ENGINE_ACTIVITY_TRACKER_H_
#define GPIPE_WORKER_ENGINE_ACTIVITY_TRACKER_H_

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/engine/message_sink.h"

namespace gpipe::worker {

// What the engine does right now; all that is known of a worker when it dies. The engine writes, any thread reads.
class ActivityTracker {
 public:
  explicit ActivityTracker(MessageSink& sink) : sink_(sink) {}

  // An attempt begins; Idle ends it.
  void Begin(const v1::AttemptId& attempt);
  void Idle();

  // Called before every compute action: a lock that is nearly always free, and a word to the writer on a new phase.
  void Set(v1::Phase phase, int stage = 0, int64_t step = -1, int micro_batch = -1);

  // So many bytes of files more have been fetched or sent in this phase. Heard of with the next heartbeat.
  void AddBytes(int64_t bytes);

  // While it lives, the engine waits for a worker of the attempt, or for all of them. Heard of with the next heartbeat:
  // most waits are too short to be worth a word.
  class Wait {
   public:
    static constexpr int kAll = -1;

    Wait(ActivityTracker& tracker, int worker) : tracker_(tracker) { tracker_.SetWait(worker); }
    ~Wait() { tracker_.SetWait(std::nullopt); }
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    ActivityTracker& tracker_;
  };

  v1::Activity Get() const;

 private:
  void SetWait(std::optional<int> worker);

  MessageSink& sink_;
  mutable absl::Mutex mutex_;
  v1::AttemptId attempt_ ABSL_GUARDED_BY(mutex_);
  v1::Phase phase_ ABSL_GUARDED_BY(mutex_) = v1::PHASE_IDLE;
  int stage_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t step_ ABSL_GUARDED_BY(mutex_) = -1;
  int micro_batch_ ABSL_GUARDED_BY(mutex_) = -1;
  // Of the phase.
  absl::Time phase_began_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<int> waits_for_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ACTIVITY_TRACKER_H_
