#ifndef GPIPE_ORCHESTRATOR_PLANNING_FIXED_CUT_H_
#define GPIPE_ORCHESTRATOR_PLANNING_FIXED_CUT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::orchestrator {

// The cut that a spec itself asks for, by `balance` or by `split`. Pure functions; any thread.

// Its stages; 0 when the cut is left to the partitioner.
int FixedStages(const v1::JobSpec& spec);

// Its layers per stage; empty when the cut is left to the partitioner. INVALID_ARGUMENT, by field path: a balance that
// does not add up to the layers; a module of the split that is unknown, at which no stage can begin, or out of order.
// REQUIRES: `spec` is valid.
absl::StatusOr<std::vector<int64_t>> FixedCut(const v1::JobSpec& spec, const std::vector<v1::LayerInfo>& layers);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_FIXED_CUT_H_
