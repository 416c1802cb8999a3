#ifndef GPIPE_WORKER_ENGINE_DEVICE_LOCK_H_
#define GPIPE_WORKER_ENGINE_DEVICE_LOCK_H_

#include <stop_token>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace gpipe::worker {

// Who records CUDA graphs and draws random numbers on a GPU, of which there is one generator: the engine for as long as
// there is an attempt, or the inspector for a measurement. Any thread.
class DeviceLock {
 public:
  // Waits until nobody has it. False, and it is not taken: `stop` was stopped before.
  bool Take(const std::stop_token& stop) {
    bool stopped = false;
    const std::stop_callback on_stop(stop, [&] {
      absl::MutexLock lock(&mutex_);
      stopped = true;
    });
    absl::MutexLock lock(&mutex_);
    const auto is_settled = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopped || !taken_; };
    mutex_.Await(absl::Condition(&is_settled));
    if (taken_) return false;
    return taken_ = true;
  }
  bool TryTake() {
    absl::MutexLock lock(&mutex_);
    return !taken_ && (taken_ = true);
  }
  // REQUIRES: it was taken.
  void Release() {
    absl::MutexLock lock(&mutex_);
    taken_ = false;
  }

 private:
  absl::Mutex mutex_;
  bool taken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_DEVICE_LOCK_H_
