#ifndef GPIPE_ORCHESTRATOR_JOBS_JOB_STATE_H_
#define GPIPE_ORCHESTRATOR_JOBS_JOB_STATE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "gpipe/v1/job.pb.h"

namespace gpipe::orchestrator {

// What can happen to a job.
enum class JobEvent {
  kPlaced,    // Workers were assigned: a new attempt begins.
  kPrepared,  // Every worker of the attempt is prepared.
  kPause,     // A client asked to grant no more cycles.
  kResume,    // A client asked to grant cycles again.
  kSave,      // A client asked for a checkpoint.
  kFinish,    // Every worker of the attempt has finished and the results are stored.
  kFail,      // The job cannot be done; its Failure says why.
  kCancel,    // A client asked to stop it.
  kRequeue,   // Its attempt ended without its fault: workers were lost, or the orchestrator was away.
};

inline constexpr JobEvent kAllJobEvents[] = {JobEvent::kPlaced, JobEvent::kPrepared, JobEvent::kPause,
                                             JobEvent::kResume, JobEvent::kSave,     JobEvent::kFinish,
                                             JobEvent::kFail,   JobEvent::kCancel,   JobEvent::kRequeue};

// The only way a job changes its state. Returns the state after the event, which is the same one where the event only
// repeats what is so (pause of a paused job). FAILED_PRECONDITION when the event is not allowed in that state; terminal
// states allow none.
absl::StatusOr<v1::Job::State> Transition(v1::Job::State from, JobEvent event);

// SUCCEEDED, FAILED or CANCELLED.
bool IsTerminal(v1::Job::State state);

// `QUEUED`, `RUNNING`, ...: without the enum's prefix, for messages and columns.
std::string_view StateName(v1::Job::State state);
// `pause`, `be requeued`, ...: as it reads after "cannot".
std::string_view EventName(JobEvent event);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_JOB_STATE_H_
