#include "worker/session/inspector.h"

#include <utility>

#include "common/grpc_status.h"
#include "common/logging.h"

namespace gpipe::worker {

Inspector::Inspector(std::function<absl::Status()> set_up, Inspect inspect, MessageSink& sink)
    : set_up_(std::move(set_up)), inspect_(std::move(inspect)), sink_(sink), thread_([this] { Loop(); }) {}

Inspector::~Inspector() {
  requests_.Close();
  thread_.join();
}

void Inspector::Enqueue(v1::Inspect request) {
  const int64_t id = request.id();
  if (requests_.TryPush(std::move(request))) return;
  AnswerError(id, absl::UnavailableError("too many inspections are waiting on this worker"));
}

void Inspector::Loop() {
  SetThreadName("inspector");
  const absl::Status ready = set_up_();
  while (std::optional<v1::Inspect> request = requests_.Pop()) {
    if (ready.ok()) {
      Answer(inspect_(*request));
    } else {
      AnswerError(request->id(), ready);
    }
  }
}

void Inspector::AnswerError(int64_t id, const absl::Status& status) {
  v1::Inspected inspected;
  inspected.set_id(id);
  *inspected.mutable_status() = ToProto(status);
  Answer(std::move(inspected));
}

void Inspector::Answer(v1::Inspected inspected) {
  v1::WorkerMessage message;
  *message.mutable_inspected() = std::move(inspected);
  sink_.Send(std::move(message));
}

}  // namespace gpipe::worker
