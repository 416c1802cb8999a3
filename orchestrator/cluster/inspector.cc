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
  Ask(*worker, std::move(request), std::move(key), timeout, std::move(done));
}

void Inspector::Measure(v1::Inspect request, const std::string& kind, absl::Duration timeout, Callback done) {
  std::vector<WorkerEntry*> idle = registry_->Idle(v1::DEVICE_ANY);
  std::erase_if(idle, [&](const WorkerEntry* worker) { return KindOf(worker->hello) != kind; });
  const WorkerEntry* worker = LeastAsked(idle);
  if (worker != nullptr) return Ask(*worker, std::move(request), /*key=*/"", timeout, std::move(done));
  done(absl::UnavailableError(absl::StrCat("no worker is idle that could measure the model: ", kind)));
}

void Inspector::Ask(const WorkerEntry& worker, v1::Inspect request, std::string key, absl::Duration timeout,
                    Callback done) {
  if (pending_.size() >= kMaxPending) return done(absl::UnavailableError("the workers have many models to look at"));
  const int64_t id = next_id_++;
  request.set_id(id);
  timeout += TimeToFetch(request.files());
  const EventLoop::TimerId timer = loop_->PostAfter(timeout, [this, id, name = worker.name(), timeout] {
    Finish(id, absl::DeadlineExceededError(
                   absl::StrCat("worker ", name, " did not look at the model within ", absl::FormatDuration(timeout))));
  });
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
    if (pending.key != key) continue;
    pending.done.push_back(std::move(done));
    return true;
  }
  return false;
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
  absl::StatusOr<LayerInfos> layers = LayersOf(worker.name(), found->second.layers, answer);
  if (layers.ok()) Remember(found->second.key, *layers);
  Finish(answer.id(), std::move(layers));
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

void Inspector::Finish(int64_t id, absl::StatusOr<LayerInfos> result) {
  auto node = pending_.extract(id);
  if (node.empty()) return;
  loop_->CancelTimer(node.mapped().timer);
  for (const Callback& done : node.mapped().done) done(result);
}

void Inspector::Remember(const std::string& key, const LayerInfos& layers) {
  if (key.empty() || !known_.emplace(key, layers).second) return;
  known_order_.push_back(key);
  if (known_order_.size() <= kMaxKnown) return;
  known_.erase(known_order_.front());
  known_order_.pop_front();
}

}  // namespace gpipe::orchestrator
