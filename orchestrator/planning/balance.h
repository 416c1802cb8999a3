#ifndef GPIPE_ORCHESTRATOR_PLANNING_BALANCE_H_
#define GPIPE_ORCHESTRATOR_PLANNING_BALANCE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {

// The cut for the request's workers: the spec's own (FixedCut), or the one, a stage for each, whose slowest stage, by
// the profiles of its worker and with its sends over the links, is fastest within the workers' memory; from there with
// the borders moved to where a step of training is faster (BalancePasses), and no more is sent.
// `request.balance` is not read. RESOURCE_EXHAUSTED ("out of memory") when nothing fits, or the spec's own cut does
// not: of that, weights, gradients and optimizer state count, and what else the workers hold where it was measured.
// INVALID_ARGUMENT: as FixedCut. REQUIRES: where the spec leaves the cut open, at most as many workers as layers.
absl::StatusOr<std::vector<int64_t>> Balance(const PlanRequest& request);

// What each micro-batch adds to a step under a cut with a stage for each worker (SlowestPasses). REQUIRES: the layers
// were measured.
double SecondsPerMicroBatch(const PlanRequest& request, const std::vector<int64_t>& balance);

// Whether Balance needs profiles: the spec leaves the cut open, and there is more than one way to cut so many layers.
bool NeedsMeasuring(const v1::JobSpec& spec, int layers, int workers);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_BALANCE_H_
