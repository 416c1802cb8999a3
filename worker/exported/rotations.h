#ifndef GPIPE_WORKER_EXPORTED_ROTATIONS_H_
#define GPIPE_WORKER_EXPORTED_ROTATIONS_H_

#include <optional>
#include <string_view>
#include <vector>

#include "worker/exported/fusions.h"
#include "worker/exported/node_uses.h"

namespace gpipe::worker {

// The rotation of a tensor by its positions (worker/model/rotation.h) that ends with this node.
std::optional<Fusion> RotationEndingWith(size_t last, const NodeUses& uses);

bool IsRotation(std::string_view kind);

// REQUIRES: `values` are those of such a fusion.
at::Tensor ComputeRotation(std::string_view kind, const std::vector<at::Tensor>& values);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_ROTATIONS_H_
