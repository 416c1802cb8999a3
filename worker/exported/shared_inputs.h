#ifndef GPIPE_WORKER_EXPORTED_SHARED_INPUTS_H_
#define GPIPE_WORKER_EXPORTED_SHARED_INPUTS_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "common/exported/program.h"
#include "worker/exported/frame.h"
#include "worker/exported/result_slot.h"

namespace gpipe::worker {

// Nodes with their places among the program's.
using PlacedNodes = std::vector<std::pair<uint64_t, const exported::Node*>>;

// The nodes, with one more before the first of several products with a weight that read the same value: it makes a
// value of its own of that (worker/model/shared_input.h), which they read instead. New nodes are kept by `made`.
// Products are left as they are where a node between them may write to what it is given.
PlacedNodes WithSharedInputs(const PlacedNodes& nodes, std::deque<exported::Node>& made);

// Null for any other node. REQUIRES: `slots` has what it reads.
std::unique_ptr<Instruction> MakeSharedInput(const exported::Node& node, Slots& slots);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_SHARED_INPUTS_H_
