#include "worker/engine/attempt_control.h"

namespace gpipe::worker {

void AttemptControl::Abort(const absl::Status& reason, bool announced) {
  absl::MutexLock lock(&mutex_);
  announced_ |= announced;
  if (aborted()) return;
  aborted_ = reason;
  gate_.Abort(reason);
  rounds_.Abort(reason);
  rendezvous_.Abort(reason);
  if (communicator_ != nullptr) communicator_->Abort(reason);
  stop_.request_stop();
}

void AttemptControl::Release() {
  absl::MutexLock lock(&mutex_);
  released_ = true;
  announced_ = true;
}

absl::Status AttemptControl::status() const {
  absl::MutexLock lock(&mutex_);
  return aborted_;
}

absl::Status AttemptControl::WaitForAbort() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &AttemptControl::aborted));
  return aborted_;
}

bool AttemptControl::WaitForEnd() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &AttemptControl::ended));
  return announced_;
}

void AttemptControl::SetCommunicator(Communicator* communicator) {
  absl::MutexLock lock(&mutex_);
  communicator_ = communicator;
  if (communicator_ != nullptr && aborted()) communicator_->Abort(aborted_);
}

}  // namespace gpipe::worker
