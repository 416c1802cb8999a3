#ifndef GPIPE_CLIENT_CLI_JOB_OUTPUT_H_
#define GPIPE_CLIENT_CLI_JOB_OUTPUT_H_

#include <string>

#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// Tables, each line ended by \n.

std::string RenderJobs(const v1::ListJobsResponse& jobs);
// Everything about one job: `describe`.
std::string RenderJob(const v1::Job& job);
std::string RenderWorkers(const v1::ListWorkersResponse& workers);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_JOB_OUTPUT_H_
