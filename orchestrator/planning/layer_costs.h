#ifndef GPIPE_ORCHESTRATOR_PLANNING_LAYER_COSTS_H_
#define GPIPE_ORCHESTRATOR_PLANNING_LAYER_COSTS_H_

#include <cstdint>
#include <vector>

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "orchestrator/artifacts/input_check.h"
#include "pipeline/partitioner.h"

namespace gpipe::orchestrator {

// What each layer costs the worker that hosts it, for the partitioner: seconds of one micro-batch, and bytes for the
// whole mini-batch (weights, gradients, optimizer state, what is saved for the backward pass).
std::vector<pipeline::LayerCost> LayerCosts(const v1::JobSpec& spec, const InputFacts& facts,
                                            const std::vector<v1::LayerInfo>& layers);

// Forward, backward and recompute of a run of layers, one micro-batch.
struct PassSeconds {
  double forward = 0;
  double backward = 0;
};
PassSeconds SecondsOf(const v1::JobSpec& spec, const v1::LayerInfo& layer);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_LAYER_COSTS_H_
