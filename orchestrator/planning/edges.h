#ifndef GPIPE_ORCHESTRATOR_PLANNING_EDGES_H_
#define GPIPE_ORCHESTRATOR_PLANNING_EDGES_H_

#include "gpipe/v1/plan.pb.h"

namespace gpipe::orchestrator {

// Fills in the values that cross between the plan's stages, which of the model's inputs each stage reads, and which
// stages take part in the backward pass; and the former two of the model's evaluation program, if it has one. REQUIRES:
// plan.layers and the extent of plan.stages are set.
void AddEdges(v1::Plan& plan);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_EDGES_H_
