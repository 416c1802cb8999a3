#ifndef GPIPE_COMMON_STEADY_SIGNAL_H_
#define GPIPE_COMMON_STEADY_SIGNAL_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

namespace gpipe {

// Wakes a thread that waits for something, or for some time. absl::Mutex waits until a time of the wall clock: when the
// system's time is set back by a minute, a wait of a second takes a minute more. This one goes by the steady clock.
//
// The state that is waited for has a mutex of its own: it is changed, then Notify is called; the waiter looks, waits,
// and looks again. One thread waits; any thread notifies.
class SteadySignal {
 public:
  // Ends the wait under way, or the next one.
  void Notify() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      notified_ = true;
    }
    changed_.notify_one();
  }

  // Until notified, or for `timeout`.
  void WaitFor(absl::Duration timeout) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto notified = [this] { return notified_; };
    if (timeout >= kForever) {
      changed_.wait(lock, notified);
    } else {
      changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), notified);
    }
    notified_ = false;
  }

 private:
  static constexpr absl::Duration kForever = absl::Hours(24 * 365);  // The sum with the time must not overflow.

  std::mutex mutex_;
  std::condition_variable changed_;
  bool notified_ = false;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_STEADY_SIGNAL_H_
