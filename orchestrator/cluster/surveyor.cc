#include "orchestrator/cluster/surveyor.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"

namespace gpipe::orchestrator {

void Surveyor::Survey(v1::Survey request, v1::Device device, absl::Duration timeout, Callback done) {
  const WorkerEntry* worker = Choose(device);
  if (worker == nullptr) {
    return done(absl::UnavailableError("no suitable worker is connected that could look at shared files"));
  }
  if (pending_.size() >= kMaxPending) return done(absl::UnavailableError("the workers have many files to look at"));
  const int64_t id = next_id_++;
  request.set_id(id);
  const EventLoop::TimerId timer = loop_->PostAfter(timeout, [this, id, name = worker->name(), timeout] {
    Finish(id, absl::DeadlineExceededError(absl::StrCat("worker ", name, " did not look at shared files within ",
                                                        absl::FormatDuration(timeout))));
  });
  pending_.emplace(id, Pending{worker->name(), timer, std::move(done)});
  v1::OrchestratorMessage message;
  *message.mutable_survey() = std::move(request);
  loop_->AfterCommit([channel = worker->channel, message = std::move(message)](const absl::Status& stored) {
    if (stored.ok()) channel->Send(message);
  });
}

// An idle worker has its disk for itself.
WorkerEntry* Surveyor::Choose(v1::Device device) {
  for (const std::vector<WorkerEntry*>& workers : {registry_->Idle(device), registry_->Connected(device)}) {
    if (!workers.empty()) return workers.front();
  }
  return nullptr;
}

void Surveyor::OnSurveyed(const WorkerEntry& worker, const v1::Surveyed& answer) {
  const auto found = pending_.find(answer.id());
  if (found == pending_.end() || found->second.worker != worker.name()) return;  // Too late.
  const absl::Status status = FromProto(answer.status());
  if (status.ok()) return Finish(answer.id(), answer);
  Finish(answer.id(), status);
}

void Surveyor::OnLost(const WorkerEntry& worker) {
  std::vector<int64_t> lost;
  for (const auto& [id, pending] : pending_) {
    if (pending.worker == worker.name()) lost.push_back(id);
  }
  for (const int64_t id : lost) {
    Finish(id, absl::UnavailableError(absl::StrCat("worker ", worker.name(), " went away looking at shared files")));
  }
}

void Surveyor::Finish(int64_t id, absl::StatusOr<v1::Surveyed> result) {
  auto node = pending_.extract(id);
  if (node.empty()) return;
  loop_->CancelTimer(node.mapped().timer);
  node.mapped().done(std::move(result));
}

}  // namespace gpipe::orchestrator
