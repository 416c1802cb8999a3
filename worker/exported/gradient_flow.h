#ifndef GPIPE_WORKER_EXPORTED_GRADIENT_FLOW_H_
#define GPIPE_WORKER_EXPORTED_GRADIENT_FLOW_H_

#include <set>
#include <string>
#include <vector>

#include "worker/exported/aliasing.h"
#include "worker/exported/archive.h"
#include "worker/exported/value_index.h"

namespace gpipe::worker {

// Where gradients are to come to.
struct GradientGoals {
  const std::vector<std::string>& frozen;  // Not to parameters whose names begin with one of these, and to all others.
  const std::set<std::string>& inputs;     // To these inputs of the model, by value.
};

// For each value of the program, by its number in `index`, whether a gradient comes back for it. torch.export writes
// requires_grad for parameters only; from them it follows the nodes. It is true for some values that turn out to have
// none (the running mean that batch norm returns): a gradient of zeros travels for these. It is never false for one
// that has, or that gradient would be lost.
std::vector<bool> FindGradients(const Archive& archive, const ValueIndex& index, const Aliasing& aliasing,
                                const GradientGoals& goals);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_GRADIENT_FLOW_H_
