#ifndef GPIPE_WORKER_SESSION_LEASE_H_
#define GPIPE_WORKER_SESSION_LEASE_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gpipe::worker {

// How long the orchestrator may be silent. Until the first Alive (proto/gpipe/v1/worker_session.proto) only the answer
// to Hello has a limit. The session's reader renews, its writer looks.
class Lease {
 public:
  // The session begins; Welcome must come within `patience`.
  void Begin(absl::Time now, absl::Duration patience) {
    absl::MutexLock lock(&mutex_);
    deadline_ = now + patience;
    heartbeat_ = absl::InfiniteDuration();
    armed_ = false;
  }

  // Welcome: heartbeats begin; silence counts from the first Alive on.
  void Welcome(absl::Duration heartbeat, absl::Duration length) {
    absl::MutexLock lock(&mutex_);
    heartbeat_ = heartbeat;
    length_ = length;
    deadline_ = absl::InfiniteFuture();
  }

  // A message arrived, of which `alive` says whether the orchestrator answers heartbeats.
  void Renew(absl::Time now, bool alive) {
    absl::MutexLock lock(&mutex_);
    armed_ |= alive;
    if (armed_) deadline_ = now + length_;
  }

  // Time between heartbeats; infinite before Welcome.
  absl::Duration heartbeat() const {
    absl::MutexLock lock(&mutex_);
    return heartbeat_;
  }

  // When the orchestrator counts as lost.
  absl::Time deadline() const {
    absl::MutexLock lock(&mutex_);
    return deadline_;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Time deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Duration heartbeat_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  absl::Duration length_ ABSL_GUARDED_BY(mutex_);
  bool armed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_LEASE_H_
