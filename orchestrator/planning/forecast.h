#ifndef GPIPE_ORCHESTRATOR_PLANNING_FORECAST_H_
#define GPIPE_ORCHESTRATOR_PLANNING_FORECAST_H_

#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::orchestrator {

// Whether the plan's layers were measured, so that a forecast is possible.
bool IsMeasured(const v1::Plan& plan);

// What to expect of a full mini-batch, by simulation of the plan's first program with the measured times of its layers;
// the updates of the optimizer are not in it. `links` are those between workers of neighbouring indices; empty: sending
// takes no time. `on_gpus`: all workers have one. INTERNAL: the program is not executable, which is a fault of this
// program.
// REQUIRES: IsMeasured(plan).
absl::StatusOr<v1::Forecast> MakeForecast(const v1::JobSpec& spec, const v1::Plan& plan,
                                          const std::vector<v1::LinkSpeed>& links, bool on_gpus = false);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_FORECAST_H_
