#ifndef GPIPE_CLIENT_CLI_PLAN_BOXES_H_
#define GPIPE_CLIENT_CLI_PLAN_BOXES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "gpipe/v1/plan.pb.h"

namespace gpipe::client {

// Neighbouring layers of one stage that a drawing shows as one.
struct PlanBox {
  std::string label;  // A module's path, or a layer's kind.
  int64_t parameters = 0;
  bool part = false;  // Other stages have the rest of the module.
  bool tied = false;  // It has one of TiedTensors.
};

// By stage, at most `most` boxes each. The modules of an exported program are gathered under those that they lie in,
// equally deep everywhere, but deeper in a stage that would have next to none; of what is still too much the middle
// becomes one box.
std::vector<std::vector<PlanBox>> BoxesOf(const v1::Plan& plan, size_t most);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_PLAN_BOXES_H_
