#include "worker/session/surveyor.h"

#include <utility>

#include "common/grpc_status.h"
#include "common/logging.h"
#include "worker/data/survey.h"

namespace gpipe::worker {

Surveyor::Surveyor(SharedFiles shared, MessageSink& sink)
    : shared_(std::move(shared)), sink_(sink), thread_([this] { Loop(); }) {}

Surveyor::~Surveyor() {
  requests_.Close();
  thread_.join();
}

void Surveyor::Enqueue(v1::Survey request) {
  v1::Surveyed refused;
  refused.set_id(request.id());
  if (requests_.TryPush(std::move(request))) return;
  *refused.mutable_status() = ToProto(absl::UnavailableError("too many surveys are waiting on this worker"));
  Answer(std::move(refused));
}

void Surveyor::Loop() {
  SetThreadName("surveyor");
  while (std::optional<v1::Survey> request = requests_.Pop()) Answer(AnswerSurvey(*request, shared_));
}

void Surveyor::Answer(v1::Surveyed surveyed) {
  v1::WorkerMessage message;
  *message.mutable_surveyed() = std::move(surveyed);
  sink_.Send(std::move(message));
}

}  // namespace gpipe::worker
