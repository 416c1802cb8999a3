#include "worker/engine/grant_gate.h"

#include <algorithm>

namespace gpipe::worker {

absl::Status GrantGate::Wait(Position wanted, BeforeBlocking before_blocking) {
  const Position done = {wanted.round, wanted.cycle - 1};
  Position seen;
  {
    absl::MutexLock lock(&mutex_);
    if (!aborted_.ok()) return aborted_;
    if (wanted <= granted_) return absl::OkStatus();
    seen = granted_;
  }
  while (true) {
    if (absl::Status status = before_blocking(std::min(seen, done)); !status.ok()) return status;
    absl::MutexLock lock(&mutex_);
    auto changed = [this, seen]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !aborted_.ok() || granted_ != seen; };
    mutex_.Await(absl::Condition(&changed));
    if (!aborted_.ok()) return aborted_;
    if (wanted <= granted_) return absl::OkStatus();
    seen = granted_;
  }
}

void GrantGate::Advance(Position granted) {
  absl::MutexLock lock(&mutex_);
  granted_ = std::max(granted_, granted);
}

void GrantGate::Abort(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (aborted_.ok()) aborted_ = reason;
}

}  // namespace gpipe::worker
