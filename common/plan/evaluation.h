#ifndef GPIPE_COMMON_PLAN_EVALUATION_H_
#define GPIPE_COMMON_PLAN_EVALUATION_H_

#include "gpipe/v1/plan.pb.h"

namespace gpipe {

// Whether the model has another program in evaluation, and the job evaluates.
bool HasEvaluation(const v1::Plan& plan);

// That program in the plan's cut, as a plan by itself: layers and stages where the plan's are, with that program's
// nodes, values and edges. Without programs. REQUIRES: HasEvaluation.
v1::Plan EvaluationPlan(const v1::Plan& plan);

// The plan's edges, by the number that actions have for them: those of evaluation are counted on behind the others.
int CountEdges(const v1::Plan& plan);
const v1::Edge& EdgeAt(const v1::Plan& plan, int edge);

}  // namespace gpipe

#endif  // GPIPE_COMMON_PLAN_EVALUATION_H_
