#ifndef GPIPE_CLIENT_CLI_JOB_OUTPUT_H_
#define GPIPE_CLIENT_CLI_JOB_OUTPUT_H_

#include <string>
#include <vector>

#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// Tables, each line ended by \n.

std::string RenderJobs(const v1::ListJobsResponse& jobs);
// Everything about one job: `describe`.
std::string RenderJob(const v1::Job& job);
// A line for the step and one per stage: what was forecast, and beside it the medians of the steps, without the first
// one, which warms up. Steps of another number of stages, of an earlier attempt, do not count.
std::string RenderForecast(const v1::Forecast& forecast, std::vector<v1::StepMetrics> steps);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_JOB_OUTPUT_H_
