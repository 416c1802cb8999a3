#include "worker/session/outbox.h"

#include <utility>

#include "common/attempt_id.h"

namespace gpipe::worker {

void Outbox::Send(v1::WorkerMessage message) {
  absl::MutexLock lock(&mutex_);
  if (open_ && JoinLocked(message)) return;
  mutex_.Await(absl::Condition(this, &Outbox::HasRoomOrClosed));
  if (open_) queue_.push_back(std::move(message));
  changed_.Notify();
}

void Outbox::Post(v1::WorkerMessage message) {
  absl::MutexLock lock(&mutex_);
  if (!open_) return;
  if (!JoinLocked(message)) queue_.push_back(std::move(message));
  changed_.Notify();
}

bool Outbox::JoinLocked(v1::WorkerMessage& message) {
  if (message.has_log() && !queue_.empty() && queue_.back().has_log() &&
      SameAttempt(queue_.back().log().attempt(), message.log().attempt())) {
    queue_.back().mutable_log()->mutable_lines()->MergeFrom(message.log().lines());
    return true;
  }
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
  changed_.Notify();
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
  changed_.Notify();
}

std::optional<Outbox::Next> Outbox::Take(bool knows_of_change) {
  absl::MutexLock lock(&mutex_);
  if (open_ && queue_.empty() && (!activity_changed_ || knows_of_change)) return std::nullopt;
  Next next{.closed = !open_, .activity_changed = activity_changed_, .message = std::nullopt};
  if (queue_.empty()) return next;
  next.message = std::move(queue_.front());
  queue_.pop_front();
  return next;
}

Outbox::Next Outbox::Wait(absl::Duration timeout, bool knows_of_change) {
  const absl::Time deadline = clock_.Now() + timeout;
  while (true) {
    if (std::optional<Next> next = Take(knows_of_change)) return *std::move(next);
    const absl::Duration left = deadline - clock_.Now();
    if (left <= absl::ZeroDuration()) return {.closed = false, .activity_changed = knows_of_change, .message = {}};
    changed_.WaitFor(left);
  }
}

void Outbox::TakeActivityChange() {
  absl::MutexLock lock(&mutex_);
  activity_changed_ = false;
}

}  // namespace gpipe::worker
