#ifndef GPIPE_ORCHESTRATOR_PLANNING_PROGRAMS_H_
#define GPIPE_ORCHESTRATOR_PLANNING_PROGRAMS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::orchestrator {

// Forward passes of one mini-batch over all stages; keeps an assignment's message at some megabytes.
inline constexpr int64_t kMaxCells = 65536;

// Fills in one program per kind and size of mini-batch that the plan's timeline meets.
// REQUIRES: stages, edges, stage_worker and timeline are set.
// INTERNAL: the schedule is not executable, which is a fault of this program.
absl::Status AddPrograms(const v1::JobSpec& spec, v1::Plan& plan);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_PROGRAMS_H_
