#include "worker/engine/activity_tracker.h"

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
    phase_ = phase;
    stage_ = stage;
    step_ = step;
    micro_batch_ = micro_batch;
  }
  if (changed) sink_.ActivityChanged();
}

v1::Activity ActivityTracker::Get() const {
  absl::MutexLock lock(&mutex_);
  v1::Activity activity;
  if (!attempt_.job().empty()) *activity.mutable_attempt() = attempt_;
  activity.set_phase(phase_);
  activity.set_stage(stage_);
  activity.set_step(step_);
  activity.set_micro_batch(micro_batch_);
  return activity;
}

}  // namespace gpipe::worker
