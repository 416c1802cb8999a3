#include "orchestrator/cluster/surveyor.h"

#include <utility>

#include "common/grpc_status.h"

namespace gpipe::orchestrator {

void Surveyor::Survey(v1::Survey request, v1::Device device, absl::Duration timeout, Callback done) {
  const WorkerEntry* worker = questions_.Choose(device);
  if (worker == nullptr) {
    return done(absl::UnavailableError("no suitable worker is connected that could look at shared files"));
  }
  const auto ask = [&request](int64_t id) {
    v1::OrchestratorMessage message;
    *message.mutable_survey() = std::move(request);
    message.mutable_survey()->set_id(id);
    return message;
  };
  questions_.Ask(*worker, {.timeout = timeout}, ask, std::move(done));
}

void Surveyor::OnSurveyed(const WorkerEntry& worker, const v1::Surveyed& answer) {
  absl::StatusOr<v1::Surveyed> result = answer;
  if (absl::Status status = FromProto(answer.status()); !status.ok()) result = std::move(status);
  questions_.Take(worker, answer.id(), std::move(result));
}

}  // namespace gpipe::orchestrator
