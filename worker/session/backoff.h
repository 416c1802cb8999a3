#ifndef GPIPE_WORKER_SESSION_BACKOFF_H_
#define GPIPE_WORKER_SESSION_BACKOFF_H_

#include <algorithm>
#include <random>

#include "absl/time/time.h"

namespace gpipe::worker {

// How long to wait before the next try: doubling up to a limit, with jitter, so that many workers do not come back at
// the same moment. Not for use by two threads at once.
class Backoff {
 public:
  Backoff(absl::Duration first, absl::Duration limit, uint64_t seed)
      : first_(first), limit_(limit), next_(first), random_(seed) {}

  // Between half of the current length and all of it.
  absl::Duration Next() {
    const absl::Duration length = next_;
    next_ = std::min(2 * next_, limit_);
    return length * std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  }

  // A try succeeded.
  void Reset() { next_ = first_; }

 private:
  const absl::Duration first_;
  const absl::Duration limit_;
  absl::Duration next_;
  std::minstd_rand random_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_BACKOFF_H_
