#include "worker/engine/activity_tracker.h"

#include "absl/time/clock.h"

namespace gpipe::worker {

void ActivityTracker::Begin(const v1::AttemptId& attempt) {
  absl::MutexLock lock(&mutex_);
  attempt_ = attempt;
}

void ActivityTracker::Idle() {
  {
    absl::MutexLock lock(&mutex_);
    attempt_.Clear();
  }
  Set(v1::PHASE_IDLE);
}

void ActivityTracker::Set(v1::Phase phase, int stage, int64_t step, int micro_batch) {
  bool changed;
  {
    absl::MutexLock lock(&mutex_);
    changed = phase_ != phase;
    if (changed) {
      phase_began_ = absl::Now();
      bytes_ = 0;
    }
    phase_ = phase;
    stage_ = stage;
    step_ = step;
    micro_batch_ = micro_batch;
  }
  if (changed) sink_.ActivityChanged();
}

void ActivityTracker::AddBytes(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  bytes_ += bytes;
}

void ActivityTracker::SetWait(std::optional<int> worker) {
  absl::MutexLock lock(&mutex_);
  waits_for_ = worker;
}

v1::Activity ActivityTracker::Get() const {
  absl::MutexLock lock(&mutex_);
  v1::Activity activity;
  if (!attempt_.job().empty()) *activity.mutable_attempt() = attempt_;
  activity.set_phase(phase_);
  activity.set_stage(stage_);
  activity.set_step(step_);
  activity.set_micro_batch(micro_batch_);
  if (waits_for_) activity.set_waits_for(*waits_for_);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - phase_began_);
  activity.set_bytes_done(bytes_);
  if (bytes_ > 0 && seconds > 0) activity.set_bytes_per_second(static_cast<int64_t>(bytes_ / seconds));
  return activity;
}

}  // namespace gpipe::worker
