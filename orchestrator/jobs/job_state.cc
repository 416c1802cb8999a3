#include "orchestrator/jobs/job_state.h"

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

using v1::Job;

struct Edge {
  Job::State from;
  JobEvent event;
  Job::State to;
};

// Every edge there is. What is not here is refused.
constexpr Edge kEdges[] = {
    // Enough workers are idle and a plan was made.
    {Job::STATE_QUEUED, JobEvent::kPlaced, Job::STATE_STARTING},
    // No plan can be made: shapes that do not fit, a cut that has no room.
    {Job::STATE_QUEUED, JobEvent::kFail, Job::STATE_FAILED},
    {Job::STATE_QUEUED, JobEvent::kCancel, Job::STATE_CANCELLED},

    // Only when all workers are prepared may any cycle be granted.
    {Job::STATE_STARTING, JobEvent::kPrepared, Job::STATE_RUNNING},
    // A worker could not prepare, or was lost doing so.
    {Job::STATE_STARTING, JobEvent::kFail, Job::STATE_FAILED},
    {Job::STATE_STARTING, JobEvent::kCancel, Job::STATE_CANCELLED},
    // Sessions do not outlive the orchestrator, so an attempt does not either.
    {Job::STATE_STARTING, JobEvent::kRequeue, Job::STATE_QUEUED},

    {Job::STATE_RUNNING, JobEvent::kPause, Job::STATE_PAUSED},
    // A client that repeats a request whose answer was lost gets the same answer.
    {Job::STATE_RUNNING, JobEvent::kResume, Job::STATE_RUNNING},
    // Before a step to come, of which a paused job does none.
    {Job::STATE_RUNNING, JobEvent::kSave, Job::STATE_RUNNING},
    {Job::STATE_RUNNING, JobEvent::kFinish, Job::STATE_SUCCEEDED},
    {Job::STATE_RUNNING, JobEvent::kFail, Job::STATE_FAILED},
    {Job::STATE_RUNNING, JobEvent::kCancel, Job::STATE_CANCELLED},
    {Job::STATE_RUNNING, JobEvent::kRequeue, Job::STATE_QUEUED},

    {Job::STATE_PAUSED, JobEvent::kResume, Job::STATE_RUNNING},
    {Job::STATE_PAUSED, JobEvent::kPause, Job::STATE_PAUSED},
    // The cycles granted before the pause may have been the last ones.
    {Job::STATE_PAUSED, JobEvent::kFinish, Job::STATE_SUCCEEDED},
    // Workers can be lost while they wait.
    {Job::STATE_PAUSED, JobEvent::kFail, Job::STATE_FAILED},
    {Job::STATE_PAUSED, JobEvent::kCancel, Job::STATE_CANCELLED},
    // The pause held back an attempt that is gone.
    {Job::STATE_PAUSED, JobEvent::kRequeue, Job::STATE_QUEUED},
};

}  // namespace

absl::StatusOr<Job::State> Transition(Job::State from, JobEvent event) {
  for (const Edge& edge : kEdges) {
    if (edge.from == from && edge.event == event) return edge.to;
  }
  return WithReason(absl::FailedPreconditionError(absl::StrCat("a job that is ", AbslView(StateName(from)), " cannot ",
                                                               AbslView(EventName(event)))),
                    reason::kWrongJobState);
}

bool IsTerminal(Job::State state) {
  return state == Job::STATE_SUCCEEDED || state == Job::STATE_FAILED || state == Job::STATE_CANCELLED;
}

std::string_view StateName(Job::State state) {
  std::string_view name = Job::State_Name(state);
  constexpr std::string_view kPrefix = "STATE_";
  return name.empty() ? "UNKNOWN" : name.substr(kPrefix.size());
}

std::string_view EventName(JobEvent event) {
  switch (event) {
    case JobEvent::kPlaced:
      return "be placed";
    case JobEvent::kPrepared:
      return "be prepared";
    case JobEvent::kPause:
      return "pause";
    case JobEvent::kResume:
      return "resume";
    case JobEvent::kSave:
      return "write a checkpoint";
    case JobEvent::kFinish:
      return "finish";
    case JobEvent::kFail:
      return "fail";
    case JobEvent::kCancel:
      return "be cancelled";
    case JobEvent::kRequeue:
      return "be requeued";
  }
  return "change";
}

}  // namespace gpipe::orchestrator
