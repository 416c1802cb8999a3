#ifndef GPIPE_ORCHESTRATOR_JOBS_WORKER_STATE_H_
#define GPIPE_ORCHESTRATOR_JOBS_WORKER_STATE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::orchestrator {

// What can happen to a worker, as the orchestrator sees it.
enum class WorkerEvent {
  kHello,        // A session began: of a name not known (STATE_UNSPECIFIED), or of one that was lost.
  kAssign,       // It was given an attempt.
  kAbort,        // Its attempt ended early and it was told so.
  kRelease,      // Its attempt finished and it was told so.
  kReleased,     // It let go of its attempt.
  kLeave,        // It wants to leave.
  kLost,         // Its session ended, or was silent for a lease.
  kUnreachable,  // Its peers cannot connect with it.
  kTryAgain,     // That was a while ago.
};

inline constexpr WorkerEvent kAllWorkerEvents[] = {
    WorkerEvent::kHello, WorkerEvent::kAssign, WorkerEvent::kAbort,       WorkerEvent::kRelease, WorkerEvent::kReleased,
    WorkerEvent::kLeave, WorkerEvent::kLost,   WorkerEvent::kUnreachable, WorkerEvent::kTryAgain};

// The only way a worker changes its state. FAILED_PRECONDITION when the event is not allowed in that state. A name
// whose session is still open must become LOST before another process may say hello under it.
absl::StatusOr<v1::Worker::State> Transition(v1::Worker::State from, WorkerEvent event);

// `IDLE`, `ASSIGNED`, ...
std::string_view StateName(v1::Worker::State state);
// `leave`, `be assigned`, ...: as it reads after "cannot".
std::string_view EventName(WorkerEvent event);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_WORKER_STATE_H_
