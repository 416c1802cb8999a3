#ifndef GPIPE_ORCHESTRATOR_CLUSTER_MESSAGE_CHECK_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_MESSAGE_CHECK_H_

#include "absl/status/status.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// Whether what a worker says can be true of any job: no negative counts and times, numbers that are numbers, as many
// parts as there can be. What it says of its own job is checked where that is known (Attempt, StepCollector,
// ClockWindow, LinkMeter). INVALID_ARGUMENT names the field; hello has its own check.
absl::Status CheckMessage(const v1::WorkerMessage& message);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_MESSAGE_CHECK_H_
