#include "orchestrator/scheduling/watch_queue.h"

#include <algorithm>
#include <utility>

namespace gpipe::orchestrator {
namespace {

bool MayBeDropped(const v1::WatchJobResponse& update) {
  return update.has_step() || update.has_cycle() || update.has_activity();
}

}  // namespace

void WatchQueue::Next(Deliver deliver) {
  Delivery delivery;
  {
    absl::MutexLock lock(&mutex_);
    waiting_ = std::move(deliver);
    delivery = Match();
  }
  delivery.Run();
}

void WatchQueue::Push(const v1::WatchJobResponse& update) {
  Delivery delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    updates_.push_back(update);
    MakeRoom();
    delivery = Match();
  }
  delivery.Run();
}

void WatchQueue::Close(const absl::Status& end) {
  Delivery delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    closed_ = true;
    end_ = end;
    delivery = Match();
  }
  delivery.Run();
}

void WatchQueue::Abandon() {
  Delivery delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (!closed_) end_ = absl::CancelledError("the watcher went away");
    closed_ = true;
    updates_.clear();
    delivery = Match();
  }
  delivery.Run();
}

bool WatchQueue::closed() const {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

WatchQueue::Delivery WatchQueue::Match() {
  if (!waiting_ || (updates_.empty() && !closed_)) return {};
  Delivery delivery{.deliver = std::exchange(waiting_, nullptr), .update = std::nullopt, .end = end_};
  if (!updates_.empty()) {
    delivery.update = std::move(updates_.front());
    updates_.pop_front();
  }
  return delivery;
}

// The count of what is left out stands where it was left out.
void WatchQueue::MakeRoom() {
  if (updates_.size() <= kMaxUpdates) return;
  auto oldest = std::find_if(updates_.begin(), updates_.end(), MayBeDropped);
  if (oldest == updates_.end()) {
    if (updates_.size() <= kMaxRetained) return;
    closed_ = true;
    end_ = absl::ResourceExhaustedError("the watcher is too slow");
    return;
  }
  auto before = oldest == updates_.begin() ? updates_.end() : std::prev(oldest);
  if (before != updates_.end() && before->update_case() == v1::WatchJobResponse::kDropped) {
    before->set_dropped(before->dropped() + 1);
    updates_.erase(oldest);
  } else {
    oldest->set_dropped(1);
  }
}

}  // namespace gpipe::orchestrator
