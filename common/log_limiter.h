#ifndef GPIPE_COMMON_LOG_LIMITER_H_
#define GPIPE_COMMON_LOG_LIMITER_H_

#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"

namespace gpipe {

// Keeps those who are not let in from filling the log: of the lines of one kind only so many go through in a second.
// Any thread may call any method.
class LogLimiter {
 public:
  explicit LogLimiter(int lines_per_second, const Clock* clock = nullptr)
      : most_(lines_per_second), clock_(clock == nullptr ? &own_clock_ : clock) {}

  // How many lines were left out since the last one that was not; nullopt: so is this one.
  std::optional<int> Pass() {
    absl::MutexLock lock(&mutex_);
    if (const absl::Time now = clock_->Now(); now - second_ >= absl::Seconds(1)) {
      second_ = now;
      passed_ = 0;
    }
    if (passed_ == most_) {
      ++left_out_;
      return std::nullopt;
    }
    ++passed_;
    return std::exchange(left_out_, 0);
  }

 private:
  const int most_;
  const SteadyClock own_clock_;
  const Clock* const clock_;
  absl::Mutex mutex_;
  absl::Time second_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  int passed_ ABSL_GUARDED_BY(mutex_) = 0;
  int left_out_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_LOG_LIMITER_H_
