#include "orchestrator/cluster/inspector.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "orchestrator/cluster/fetch_time.h"

namespace gpipe::orchestrator {
namespace {

// `expected` is 0 for an exported model, whose layers only the worker knows.
absl::Status CheckLayers(const std::string& worker, int expected, const LayerInfos& layers) {
  const bool right = expected == 0 ? !layers.empty() : static_cast<int>(layers.size()) == expected;
  if (right) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("worker ", worker, " described ", layers.size(), " layers of ", expected));
}

}  // namespace

void Inspector::Inspect(v1::Inspect request, v1::Device device, absl::Duration timeout, Callback done) {
  request.clear_id();
  std::string key = request.SerializeAsString();
  if (auto known = known_.find(key); known != known_.end()) return done(known->second);
  if (questions_.Join(key, done)) return;
  const WorkerEntry* worker = questions_.Choose(device);
  if (worker == nullptr) {
    return done(absl::UnavailableError("no suitable worker is connected that could look at the model"));
  }
  timeout += TimeToFetch(request.files());
  if (questions_.JoinLate(worker->name(), key, timeout, done)) return;
  Ask(*worker, std::move(request), std::move(key), timeout, std::move(done));
}

void Inspector::Measure(v1::Inspect request, const std::string& kind, absl::Duration timeout, Callback done) {
  std::vector<WorkerEntry*> idle = registry_->Idle(v1::DEVICE_ANY);
  std::erase_if(idle, [&](const WorkerEntry* worker) { return KindOf(worker->hello) != kind; });
  const WorkerEntry* worker = questions_.LeastAsked(idle);
  timeout += TimeToFetch(request.files());
  if (worker != nullptr) return Ask(*worker, std::move(request), /*key=*/"", timeout, std::move(done));
  done(absl::UnavailableError(absl::StrCat("no worker is idle that could measure the model: ", kind)));
}

void Inspector::Ask(const WorkerEntry& worker, v1::Inspect request, std::string key, absl::Duration timeout,
                    Callback done) {
  const auto check = [name = worker.name(), expected = request.model().sequential_size()](const LayerInfos& layers) {
    return CheckLayers(name, expected, layers);
  };
  const auto ask = [&request](int64_t id) {
    v1::OrchestratorMessage message;
    *message.mutable_inspect() = std::move(request);
    message.mutable_inspect()->set_id(id);
    return message;
  };
  questions_.Ask(worker, {std::move(key), timeout, check}, ask, std::move(done));
}

void Inspector::OnInspected(const WorkerEntry& worker, const v1::Inspected& answer) {
  absl::StatusOr<LayerInfos> layers = LayerInfos(answer.layers().begin(), answer.layers().end());
  if (absl::Status status = FromProto(answer.status()); !status.ok()) layers = std::move(status);
  const std::optional<std::string> key = questions_.Take(worker, answer.id(), layers);
  if (!key) return;
  Remember(*key, *layers);
  questions_.FinishAll(*key, *layers);
}

void Inspector::ForgetAnswers() {
  known_.clear();
  known_order_.clear();
}

void Inspector::Remember(const std::string& key, const LayerInfos& layers) {
  if (!known_.emplace(key, layers).second) return;
  known_order_.push_back(key);
  if (known_order_.size() <= kMaxKnown) return;
  known_.erase(known_order_.front());
  known_order_.pop_front();
}

}  // namespace gpipe::orchestrator
