#include "orchestrator/scheduling/watch_queue.h"

#include <algorithm>
#include <utility>

namespace gpipe::orchestrator {
namespace {

bool MayBeDropped(const v1::WatchJobResponse& update) {
  return update.has_step() || update.has_stages() || update.has_cycle() || update.has_activity();
}

// In the place of `lost`: a watcher that goes on after it has seen all that it ever will.
JobUpdate DroppedAfter(const JobUpdate& before, const v1::WatchJobResponse& lost) {
  const bool counts = before != nullptr && before->has_dropped();
  auto marker = std::make_shared<v1::WatchJobResponse>();
  marker->set_dropped(counts ? before->dropped() + 1 : 1);
  marker->set_resume_token(lost.resume_token());
  return marker;
}

}  // namespace

void WatchQueue::Next(Deliver deliver) {
  Delivery<JobUpdate> delivery;
  {
    absl::MutexLock lock(&mutex_);
    waiting_ = std::move(deliver);
    delivery = Match();
  }
  delivery.Run();
}

bool WatchQueue::Wanted(const v1::WatchJobResponse& update) const {
  if (update.has_cycle()) return wants_.cycles;
  return !update.has_stages() || wants_.stages;
}

void WatchQueue::Prime(const std::vector<JobUpdate>& missed) {
  Delivery<JobUpdate> delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    for (const JobUpdate& update : missed) {
      if (Wanted(*update)) missed_.push_back(update);
    }
    delivery = Match();
  }
  delivery.Run();
}

void WatchQueue::Push(JobUpdate update) {
  if (!Wanted(*update)) return;
  Delivery<JobUpdate> delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    updates_.push_back(std::move(update));
    MakeRoom();
    delivery = Match();
  }
  delivery.Run();
}

void WatchQueue::Close(const absl::Status& end) {
  Delivery<JobUpdate> delivery;
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
  Delivery<JobUpdate> delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (!closed_) end_ = absl::CancelledError("the watcher went away");
    closed_ = true;
    missed_.clear();
    updates_.clear();
    delivery = Match();
  }
  delivery.Run();
}

bool WatchQueue::closed() const {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

Delivery<JobUpdate> WatchQueue::Match() {
  std::deque<JobUpdate>& next = missed_.empty() ? updates_ : missed_;
  if (!waiting_ || (next.empty() && !closed_)) return {};
  Delivery<JobUpdate> delivery{.deliver = std::exchange(waiting_, nullptr), .end = end_};
  if (!next.empty()) {
    delivery.item = std::move(next.front());
    next.pop_front();
  }
  return delivery;
}

// The count of what is left out stands where it was left out.
void WatchQueue::MakeRoom() {
  if (updates_.size() <= kMaxUpdates) return;
  auto oldest =
      std::find_if(updates_.begin(), updates_.end(), [](const JobUpdate& update) { return MayBeDropped(*update); });
  if (oldest == updates_.end()) {
    if (updates_.size() <= kMaxRetained) return;
    closed_ = true;
    end_ = absl::ResourceExhaustedError("the watcher is too slow");
    return;
  }
  const JobUpdate before = oldest == updates_.begin() ? nullptr : *std::prev(oldest);
  *oldest = DroppedAfter(before, **oldest);
  if (before != nullptr && before->has_dropped()) updates_.erase(std::prev(oldest));
}

}  // namespace gpipe::orchestrator
