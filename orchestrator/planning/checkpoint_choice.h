#ifndef GPIPE_ORCHESTRATOR_PLANNING_CHECKPOINT_CHOICE_H_
#define GPIPE_ORCHESTRATOR_PLANNING_CHECKPOINT_CHOICE_H_

#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {

// What `pipeline.checkpoint` is for the request's workers where the spec leaves it open (CHECKPOINT_AUTO): never, which
// spares the forward that is computed again, where it may be, the cut is one by measured times (NeedsMeasuring), there
// is one under which the workers can hold what all micro-batches keep, and its steps are not slower than those of the
// best cut that computes again; else except_last, with which little is held. Else it is what the spec says.
// `request.balance` is not read. Pure; any thread. REQUIRES: what Balance does.
v1::Checkpoint ChooseCheckpoint(const PlanRequest& request);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_CHECKPOINT_CHOICE_H_
