#ifndef GPIPE_ORCHESTRATOR_PLANNING_LR_SCHEDULE_H_
#define GPIPE_ORCHESTRATOR_PLANNING_LR_SCHEDULE_H_

#include <cstdint>

#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::orchestrator {

// The learning rate of optimizer step `step`, from 0, of a job of `total_steps` steps. `train` gives the optimizer's
// lr. REQUIRES: spec::WithDefaults.
double LearningRate(const v1::Train& train, const v1::LrSchedule& schedule, int64_t step, int64_t total_steps);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_LR_SCHEDULE_H_
