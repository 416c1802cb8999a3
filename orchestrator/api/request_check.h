#ifndef GPIPE_ORCHESTRATOR_API_REQUEST_CHECK_H_
#define GPIPE_ORCHESTRATOR_API_REQUEST_CHECK_H_

#include <string>

#include "absl/status/status.h"
#include "gpipe/v1/monitoring.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::orchestrator {

// What a request says by itself is checked before it gets to the loop. INVALID_ARGUMENT lists bad fields by path.
absl::Status CheckRequest(const v1::SubmitJobRequest& request);
absl::Status CheckRequest(const v1::PlanJobRequest& request);
absl::Status CheckRequest(const v1::ListJobsRequest& request);
absl::Status CheckRequest(const v1::GetTimelineRequest& request);
absl::Status CheckJobId(const std::string& id);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_REQUEST_CHECK_H_
