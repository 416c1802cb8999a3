#ifndef GPIPE_ORCHESTRATOR_PLANNING_EDGES_H_
#define GPIPE_ORCHESTRATOR_PLANNING_EDGES_H_

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::orchestrator {

// Fills in the values that cross between the plan's stages, and which stages take part in the backward pass.
// REQUIRES: plan.layers and the extent of plan.stages are set.
void AddEdges(const v1::JobSpec& spec, v1::Plan& plan);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_EDGES_H_
