#include "orchestrator/scheduling/cluster_feed.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "orchestrator/scheduling/resume_token.h"

namespace gpipe::orchestrator {

ClusterFeed::ClusterFeed() : epoch_(NewEpoch()) {}

void ClusterFeed::Publish(const std::string& key, v1::WatchClusterResponse update, bool over) {
  std::vector<Delivery<ClusterUpdate>> deliveries;
  {
    absl::MutexLock lock(&mutex_);
    Insert(key, std::move(update), over);
    for (const auto& watcher : watchers_) deliveries.push_back(Match(*watcher));
  }
  for (Delivery<ClusterUpdate>& delivery : deliveries) delivery.Run();
}

void ClusterFeed::Insert(const std::string& key, v1::WatchClusterResponse update, bool over) {
  if (const auto found = by_key_.find(key); found != by_key_.end()) Erase(found->second);
  ++sequence_;
  update.set_resume_token(TokenFor(sequence_));
  entries_[sequence_] = {key, std::make_shared<const v1::WatchClusterResponse>(std::move(update)), over};
  by_key_[key] = sequence_;
  if (over) over_.insert(sequence_);
  if (over_.size() <= kMaxOver) return;
  forgotten_ = *over_.begin();
  Erase(forgotten_);
}

void ClusterFeed::Erase(int64_t sequence) {
  const auto node = entries_.extract(sequence);
  by_key_.erase(node.mapped().key);
  over_.erase(sequence);
}

bool ClusterFeed::watched() const {
  absl::MutexLock lock(&mutex_);
  return !watchers_.empty();
}

absl::Status ClusterFeed::Start(const std::shared_ptr<Watcher>& watcher, std::string_view resume_token) {
  Delivery<ClusterUpdate> delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (!closed_.ok()) return closed_;
    if (watcher->ended) return watcher->end;
    if (watchers_.size() >= kMaxWatchers) {
      return WithReason(
          absl::ResourceExhaustedError(absl::StrCat("the cluster has ", kMaxWatchers, " watchers already")),
          reason::kTooManyWatchers);
    }
    const std::optional<int64_t> seen = SequenceIn(resume_token, epoch_, sequence_);
    watcher->fresh = !seen.has_value();
    watcher->seen = seen.value_or(0);
    watcher->begun = sequence_;
    watcher->started = true;
    watchers_.insert(watcher);
    delivery = Match(*watcher);
  }
  delivery.Run();
  return absl::OkStatus();
}

void ClusterFeed::Next(const std::shared_ptr<Watcher>& watcher, Deliver deliver) {
  Delivery<ClusterUpdate> delivery;
  {
    absl::MutexLock lock(&mutex_);
    watcher->waiting = std::move(deliver);
    delivery = Match(*watcher);
  }
  delivery.Run();
}

void ClusterFeed::End(const std::shared_ptr<Watcher>& watcher, const absl::Status& end) {
  Delivery<ClusterUpdate> delivery;
  {
    absl::MutexLock lock(&mutex_);
    watchers_.erase(watcher);
    if (watcher->ended) return;
    watcher->ended = true;
    watcher->end = end;
    delivery = Match(*watcher);
  }
  delivery.Run();
}

void ClusterFeed::Close(const absl::Status& end) {
  std::set<std::shared_ptr<Watcher>> watchers;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = end;
    watchers = watchers_;
  }
  for (const auto& watcher : watchers) End(watcher, end);
}

Delivery<ClusterUpdate> ClusterFeed::Match(Watcher& watcher) const {
  if (!watcher.waiting) return {};
  if (watcher.ended) return {std::exchange(watcher.waiting, nullptr), nullptr, watcher.end};
  ClusterUpdate update = watcher.started ? NextFor(watcher) : nullptr;
  if (update == nullptr) return {};
  return {std::exchange(watcher.waiting, nullptr), std::move(update), absl::OkStatus()};
}

// Null: there is nothing new.
ClusterUpdate ClusterFeed::NextFor(Watcher& watcher) const {
  if (!watcher.fresh && watcher.seen < forgotten_) return BeginAnew(watcher);
  auto next = entries_.upper_bound(watcher.seen);
  while (watcher.fresh && next != entries_.end() && next->first <= watcher.begun && next->second.over) ++next;
  if (next == entries_.end()) return watcher.complete ? nullptr : Complete(watcher);
  const int64_t missed = next->first - watcher.seen - 1;
  if (!watcher.fresh && missed > 0) {
    watcher.seen = next->first - 1;
    return Dropped(missed, watcher.seen);
  }
  watcher.seen = next->first;
  return next->second.update;
}

// It has not heard of the end of something, and never will.
ClusterUpdate ClusterFeed::BeginAnew(Watcher& watcher) const {
  const int64_t missed = forgotten_ - watcher.seen;
  watcher.fresh = true;
  watcher.complete = false;
  watcher.begun = sequence_;
  watcher.seen = 0;
  return Dropped(missed, 0);
}

// From now on what is replaced before it comes to it is lost for it.
ClusterUpdate ClusterFeed::Complete(Watcher& watcher) const {
  watcher.complete = true;
  watcher.fresh = false;
  watcher.seen = sequence_;
  auto update = std::make_shared<v1::WatchClusterResponse>();
  update->set_complete(true);
  update->set_resume_token(TokenFor(sequence_));
  return update;
}

ClusterUpdate ClusterFeed::Dropped(int64_t count, int64_t sequence) const {
  auto update = std::make_shared<v1::WatchClusterResponse>();
  update->set_dropped(count);
  update->set_resume_token(TokenFor(sequence));
  return update;
}

std::string ClusterFeed::TokenFor(int64_t sequence) const { return ResumeToken(epoch_, sequence); }

}  // namespace gpipe::orchestrator
