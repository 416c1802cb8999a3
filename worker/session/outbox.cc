#include "worker/session/outbox.h"

#include <utility>

#include "common/attempt_id.h"

namespace gpipe::worker {

void Outbox::Send(v1::WorkerMessage message) {
  absl::MutexLock lock(&mutex_);
  if (open_ && JoinLocked(message)) return;
  mutex_.Await(absl::Condition(this, &Outbox::HasRoomOrClosed));
  if (open_) queue_.push_back(std::move(message));
}

bool Outbox::JoinLocked(v1::WorkerMessage& message) {
  if (!message.has_progress() || queue_.empty() || !queue_.back().has_progress()) return false;
  v1::Progress& unsent = *queue_.back().mutable_progress();
  const v1::Progress& later = message.progress();
  if (!SameAttempt(unsent.attempt(), later.attempt())) return false;
  unsent.MergeFrom(later);  // The actions and rounds of both,
  unsent.set_round(later.round());
  unsent.set_cycle(later.cycle());  // and the later position, zeros included.
  return true;
}

void Outbox::ActivityChanged() {
  absl::MutexLock lock(&mutex_);
  activity_changed_ = true;
}

void Outbox::Open() {
  absl::MutexLock lock(&mutex_);
  queue_.clear();
  activity_changed_ = false;  // Welcome tells the writer of it anew.
  open_ = true;
}

void Outbox::Close() {
  absl::MutexLock lock(&mutex_);
  queue_.clear();
  open_ = false;
}

Outbox::Next Outbox::Wait(absl::Time deadline, bool knows_of_change) {
  absl::MutexLock lock(&mutex_);
  auto ready = [this, knows_of_change]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !open_ || !queue_.empty() || (activity_changed_ && !knows_of_change);
  };
  mutex_.AwaitWithDeadline(absl::Condition(&ready), deadline);
  Next next;
  next.closed = !open_;
  next.activity_changed = activity_changed_;
  if (!queue_.empty()) {
    next.message = std::move(queue_.front());
    queue_.pop_front();
  }
  return next;
}

void Outbox::TakeActivityChange() {
  absl::MutexLock lock(&mutex_);
  activity_changed_ = false;
}

}  // namespace gpipe::worker
