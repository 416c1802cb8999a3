#ifndef GPIPE_COMMON_CLOCK_H_
#define GPIPE_COMMON_CLOCK_H_

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace gpipe {

// What time it is; a seam, so that leases are tested without waiting. Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes back.
  virtual absl::Time Now() const = 0;
};

// The wall clock at the start, moved on by the steady clock: setting the system's time expires no lease. What it says
// is comparable within one object only.
class SteadyClock final : public Clock {
 public:
  absl::Time Now() const override {
    return wall_start_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_start_);
  }

 private:
  const absl::Time wall_start_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_start_ = std::chrono::steady_clock::now();
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_CLOCK_H_
