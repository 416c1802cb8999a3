#ifndef GPIPE_WORKER_EXPORTED_GATES_H_
#define GPIPE_WORKER_EXPORTED_GATES_H_

#include <optional>
#include <string_view>
#include <vector>

#include "worker/exported/fusions.h"
#include "worker/exported/node_uses.h"

namespace gpipe::worker {

// A product with silu or gelu of a tensor (worker/model/gate.h) that ends with this node.
std::optional<Fusion> GateEndingWith(size_t last, const NodeUses& uses);

bool IsGate(std::string_view kind);

// REQUIRES: `values` are those of a fusion of this kind.
at::Tensor ComputeGate(std::string_view kind, const std::vector<at::Tensor>& values);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_GATES_H_
