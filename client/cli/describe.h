#ifndef GPIPE_CLIENT_CLI_DESCRIBE_H_
#define GPIPE_CLIENT_CLI_DESCRIBE_H_

#include <string>

#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// A job's attempts out of its events: when each began, with what, for how long it went on and how it ended. Empty when
// there is none.
std::string RenderAttempts(const v1::ListJobEventsResponse& events);

// All about a job on one page: state, stages, plan, forecast, attempts, the newest events and the spec.
std::string RenderDescription(const v1::Job& job, const v1::ListJobEventsResponse& events, const std::string& forecast);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_DESCRIBE_H_
