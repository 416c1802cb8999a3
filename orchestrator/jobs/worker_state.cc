#include "orchestrator/jobs/worker_state.h"

#include "absl/strings/str_cat.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

using v1::Worker;

struct Edge {
  Worker::State from;
  WorkerEvent event;
  Worker::State to;
};

// Every edge there is. What is not here is refused.
constexpr Edge kEdges[] = {
    // A name that was never here, or was lost and came back as a new process.
    {Worker::STATE_UNSPECIFIED, WorkerEvent::kHello, Worker::STATE_IDLE},
    {Worker::STATE_LOST, WorkerEvent::kHello, Worker::STATE_IDLE},

    {Worker::STATE_IDLE, WorkerEvent::kAssign, Worker::STATE_ASSIGNED},
    {Worker::STATE_IDLE, WorkerEvent::kLeave, Worker::STATE_LEAVING},
    {Worker::STATE_IDLE, WorkerEvent::kLost, Worker::STATE_LOST},

    // Not idle until it says so: its device memory is still in use.
    {Worker::STATE_ASSIGNED, WorkerEvent::kAbort, Worker::STATE_RELEASING},
    {Worker::STATE_ASSIGNED, WorkerEvent::kRelease, Worker::STATE_RELEASING},
    // Its attempt ends with it; the job's side of that is kFail.
    {Worker::STATE_ASSIGNED, WorkerEvent::kLeave, Worker::STATE_LEAVING},
    {Worker::STATE_ASSIGNED, WorkerEvent::kLost, Worker::STATE_LOST},

    {Worker::STATE_RELEASING, WorkerEvent::kReleased, Worker::STATE_IDLE},
    // A cancel while the release is on its way asks for nothing new.
    {Worker::STATE_RELEASING, WorkerEvent::kAbort, Worker::STATE_RELEASING},
    {Worker::STATE_RELEASING, WorkerEvent::kLeave, Worker::STATE_LEAVING},
    {Worker::STATE_RELEASING, WorkerEvent::kLost, Worker::STATE_LOST},

    // Letting go of its attempt does not make a leaving worker idle: it must get no new one.
    {Worker::STATE_LEAVING, WorkerEvent::kAbort, Worker::STATE_LEAVING},
    {Worker::STATE_LEAVING, WorkerEvent::kRelease, Worker::STATE_LEAVING},
    {Worker::STATE_LEAVING, WorkerEvent::kReleased, Worker::STATE_LEAVING},
    // It says so again on a second signal.
    {Worker::STATE_LEAVING, WorkerEvent::kLeave, Worker::STATE_LEAVING},
    {Worker::STATE_LEAVING, WorkerEvent::kLost, Worker::STATE_LOST},

    // Until it is started again, or a while has passed: networks are mended.
    {Worker::STATE_IDLE, WorkerEvent::kUnreachable, Worker::STATE_UNREACHABLE},
    {Worker::STATE_ASSIGNED, WorkerEvent::kUnreachable, Worker::STATE_UNREACHABLE},
    {Worker::STATE_RELEASING, WorkerEvent::kUnreachable, Worker::STATE_UNREACHABLE},
    {Worker::STATE_LEAVING, WorkerEvent::kUnreachable, Worker::STATE_LEAVING},
    {Worker::STATE_UNREACHABLE, WorkerEvent::kUnreachable, Worker::STATE_UNREACHABLE},
    {Worker::STATE_UNREACHABLE, WorkerEvent::kAbort, Worker::STATE_UNREACHABLE},
    {Worker::STATE_UNREACHABLE, WorkerEvent::kRelease, Worker::STATE_UNREACHABLE},
    {Worker::STATE_UNREACHABLE, WorkerEvent::kReleased, Worker::STATE_UNREACHABLE},
    {Worker::STATE_UNREACHABLE, WorkerEvent::kTryAgain, Worker::STATE_IDLE},
    {Worker::STATE_UNREACHABLE, WorkerEvent::kLeave, Worker::STATE_LEAVING},
    {Worker::STATE_UNREACHABLE, WorkerEvent::kLost, Worker::STATE_LOST},

    // The stream of a worker whose lease ran out ends later.
    {Worker::STATE_LOST, WorkerEvent::kLost, Worker::STATE_LOST},
};

}  // namespace

absl::StatusOr<Worker::State> Transition(Worker::State from, WorkerEvent event) {
  for (const Edge& edge : kEdges) {
    if (edge.from == from && edge.event == event) return edge.to;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("a worker that is ", AbslView(StateName(from)), " cannot ", AbslView(EventName(event))));
}

std::string_view StateName(Worker::State state) {
  std::string_view name = Worker::State_Name(state);
  constexpr std::string_view kPrefix = "STATE_";
  return name.empty() ? "UNKNOWN" : name.substr(kPrefix.size());
}

std::string_view EventName(WorkerEvent event) {
  switch (event) {
    case WorkerEvent::kHello:
      return "say hello";
    case WorkerEvent::kAssign:
      return "be assigned";
    case WorkerEvent::kAbort:
      return "be told to abort";
    case WorkerEvent::kRelease:
      return "be told to release";
    case WorkerEvent::kReleased:
      return "have released";
    case WorkerEvent::kLeave:
      return "leave";
    case WorkerEvent::kLost:
      return "be lost";
    case WorkerEvent::kUnreachable:
      return "be unreachable";
    case WorkerEvent::kTryAgain:
      return "be tried again";
  }
  return "change";
}

}  // namespace gpipe::orchestrator
