#include "orchestrator/cluster/inspector.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "orchestrator/cluster/fetch_time.h"

namespace gpipe::orchestrator {
namespace {

absl::StatusOr<LayerInfos> LayersOf(const std::string& worker, int expected, const v1::Inspected& answer) {
  absl::Status status = FromProto(answer.status());
  if (!status.ok()) return status;
  const bool right = expected == 0 ? answer.layers_size() > 0 : answer.layers_size() == expected;
  if (!right) {
    return absl::InternalError(
        absl::StrCat("worker ", worker, " described ", answer.layers_size(), " layers of ", expected));
  }
  return LayerInfos(answer.layers().begin(), answer.layers().end());
}

}  // namespace

void Inspector::Inspect(v1::Inspect request, v1::Device device, absl::Duration timeout, Callback done) {
  request.clear_id();
  std::string key = request.SerializeAsString();
  if (auto known = known_.find(key); known != known_.end()) return done(known->second);
  if (JoinPending(key, done)) return;
  WorkerEntry* worker = Choose(device);
  if (worker == nullptr) {
    return done(absl::UnavailableError("no suitable worker is connected that could look at the model"));
  }
  timeout += TimeToFetch(request.files());
  if (JoinLate(worker->name(), key, timeout, done)) return;
  Ask(*worker, std::move(request), std::move(key), timeout, std::move(done));
}

void Inspector::Measure(v1::Inspect request, const std::string& kind, absl::Duration timeout, Callback done) {
  std::vector<WorkerEntry*> idle = registry_->Idle(v1::DEVICE_ANY);
  std::erase_if(idle, [&](const WorkerEntry* worker) { return KindOf(worker->hello) != kind; });
  const WorkerEntry* worker = LeastAsked(idle);
  timeout += TimeToFetch(request.files());
  if (worker != nullptr) return Ask(*worker, std::move(request), /*key=*/"", timeout, std::move(done));
  done(absl::UnavailableError(absl::StrCat("no worker is idle that could measure the model: ", kind)));
}

void Inspector::Ask(const WorkerEntry& worker, v1::Inspect request, std::string key, absl::Duration timeout,
                    Callback done) {
  if (pending_.size() >= kMaxPending) return done(absl::UnavailableError("the workers have many models to look at"));
  const int64_t id = next_id_++;
  request.set_id(id);
  const EventLoop::TimerId timer = GiveUpAfter(timeout, id, worker.name());
  const int layers = request.model().sequential_size();  // 0 for an exported model, which only the worker knows.
  pending_.emplace(id, Pending{worker.name(), std::move(key), layers, timer, {std::move(done)}});
  v1::OrchestratorMessage message;
  *message.mutable_inspect() = std::move(request);
  loop_->AfterCommit([channel = worker.channel, message = std::move(message)](const absl::Status& stored) {
    if (stored.ok()) channel->Send(message);
  });
}

bool Inspector::JoinPending(const std::string& key, Callback& done) {
  for (auto& [id, pending] : pending_) {
    if (pending.key != key || pending.late()) continue;
    pending.done.push_back(std::move(done));
    return true;
  }
  return false;
}

bool Inspector::JoinLate(const std::string& worker, const std::string& key, absl::Duration timeout, Callback& done) {
  for (auto& [id, pending] : pending_) {
    if (pending.worker != worker || pending.key != key) continue;
    pending.done.push_back(std::move(done));
    pending.timer = GiveUpAfter(timeout, id, worker);
    return true;
  }
  return false;
}

EventLoop::TimerId Inspector::GiveUpAfter(absl::Duration timeout, int64_t id, const std::string& worker) {
  return loop_->PostAfter(timeout, [this, id, worker, timeout] {
    GiveUp(id, absl::DeadlineExceededError(absl::StrCat("worker ", worker, " did not look at the model within ",
                                                        absl::FormatDuration(timeout))));
  });
}

// Those who asked are answered; the worker is still at it, and what it finds will be kept.
void Inspector::GiveUp(int64_t id, const absl::Status& why) {
  const std::vector<Callback> done = std::exchange(pending_.at(id).done, {});
  ForgetOldestLate();
  for (const Callback& callback : done) callback(why);
}

void Inspector::ForgetOldestLate() {
  const auto late = [](const auto& entry) { return entry.second.late(); };
  if (std::ranges::count_if(pending_, late) <= static_cast<ptrdiff_t>(kMaxLate)) return;
  pending_.erase(std::ranges::find_if(pending_, late));  // Ids ascend.
}

// An idle worker answers sooner than a busy one.
WorkerEntry* Inspector::Choose(v1::Device device) {
  const std::vector<WorkerEntry*> idle = registry_->Idle(device);
  return LeastAsked(idle.empty() ? registry_->Connected(device) : idle);
}

// A worker answers one after the other.
WorkerEntry* Inspector::LeastAsked(const std::vector<WorkerEntry*>& workers) const {
  std::map<std::string, int> asked;
  for (const auto& [id, pending] : pending_) ++asked[pending.worker];
  const auto least = std::ranges::min_element(workers, {}, [&](const WorkerEntry* w) { return asked[w->name()]; });
  return least == workers.end() ? nullptr : *least;
}

void Inspector::OnInspected(const WorkerEntry& worker, const v1::Inspected& answer) {
  auto found = pending_.find(answer.id());
  if (found == pending_.end() || found->second.worker != worker.name()) return;  // Too late.
  const absl::StatusOr<LayerInfos> layers = LayersOf(worker.name(), found->second.layers, answer);
  const std::string key = found->second.key;
  Finish(answer.id(), layers);
  if (!layers.ok() || key.empty()) return;
  Remember(key, *layers);
  FinishAll(key, *layers);
}

// Another worker may be at the same model, because this one was late.
void Inspector::FinishAll(const std::string& key, const LayerInfos& layers) {
  std::vector<int64_t> same;
  for (const auto& [id, pending] : pending_) {
    if (pending.key == key) same.push_back(id);
  }
  for (const int64_t id : same) Finish(id, layers);
}

void Inspector::OnLost(const WorkerEntry& worker) {
  std::vector<int64_t> lost;
  for (const auto& [id, pending] : pending_) {
    if (pending.worker == worker.name()) lost.push_back(id);
  }
  for (int64_t id : lost) {
    Finish(id, absl::UnavailableError(absl::StrCat("worker ", worker.name(), " went away looking at the model")));
  }
}

void Inspector::Finish(int64_t id, const absl::StatusOr<LayerInfos>& result) {
  auto node = pending_.extract(id);
  if (node.empty()) return;
  if (!node.mapped().late()) loop_->CancelTimer(node.mapped().timer);
  for (const Callback& done : node.mapped().done) done(result);
}

void Inspector::Remember(const std::string& key, const LayerInfos& layers) {
  if (!known_.emplace(key, layers).second) return;
  known_order_.push_back(key);
  if (known_order_.size() <= kMaxKnown) return;
  known_.erase(known_order_.front());
  known_order_.pop_front();
}

}  // namespace gpipe::orchestrator
