#ifndef GPIPE_CLIENT_CLI_PLAN_DRAWING_H_
#define GPIPE_CLIENT_CLI_PLAN_DRAWING_H_

#include <string>

#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// `gpipe plan --svg`: the model and its cuts as an SVG file. A column per stage with boxes for its modules and, under
// them, its worker, parameters and, where they were foreseen, memory and time; arrows for the values that cross with
// their bytes per micro-batch, those that skip stages as arcs over them; tied parameters joined below.
std::string DrawPlan(const v1::PlanJobResponse& response);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_PLAN_DRAWING_H_
