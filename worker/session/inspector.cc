#include "worker/session/inspector.h"

#include <utility>

#include "common/grpc_status.h"
#include "common/logging.h"

namespace gpipe::worker {

Inspector::Inspector(std::function<void()> set_up, Inspect inspect, MessageSink& sink)
    : set_up_(std::move(set_up)), inspect_(std::move(inspect)), sink_(sink), thread_([this] { Loop(); }) {}

Inspector::~Inspector() {
  requests_.Close();
  thread_.join();
}

void Inspector::Enqueue(v1::Inspect request) {
  const int64_t id = request.id();
  if (requests_.TryPush(std::move(request))) return;
  v1::Inspected busy;
  busy.set_id(id);
  *busy.mutable_status() = ToProto(absl::ResourceExhaustedError("too many inspections are waiting on this worker"));
  Answer(std::move(busy));
}

void Inspector::Loop() {
  SetThreadName("inspector");
  set_up_();
  while (std::optional<v1::Inspect> request = requests_.Pop()) Answer(inspect_(*request));
}

void Inspector::Answer(v1::Inspected inspected) {
  v1::WorkerMessage message;
  *message.mutable_inspected() = std::move(inspected);
  sink_.Send(std::move(message));
}

}  // namespace gpipe::worker
