#ifndef GPIPE_WORKER_EXPORTED_GRADIENT_FLOW_H_
#define GPIPE_WORKER_EXPORTED_GRADIENT_FLOW_H_

#include <string>
#include <vector>

#include "worker/exported/aliasing.h"
#include "worker/exported/archive.h"
#include "worker/exported/value_index.h"

namespace gpipe::worker {

// For each value of the program, by its number in `index`, whether a gradient comes back for it when the parameters are
// trained whose names begin with none of `frozen`. torch.export writes requires_grad for parameters only; from them it
// follows the nodes. It is true for some values that turn out to have none (the running mean that batch norm returns):
// a gradient of zeros travels for these. It is never false for one that has, or that gradient would be lost.
std::vector<bool> FindGradients(const Archive& archive, const ValueIndex& index, const Aliasing& aliasing,
                                const std::vector<std::string>& frozen);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_GRADIENT_FLOW_H_
