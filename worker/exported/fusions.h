#ifndef GPIPE_WORKER_EXPORTED_FUSIONS_H_
#define GPIPE_WORKER_EXPORTED_FUSIONS_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/exported/program.h"
#include "worker/exported/frame.h"
#include "worker/exported/result_slot.h"

namespace gpipe::worker {

// Nodes that are done as one, where the last of them is: their own values are used by nothing else, and nothing is
// written to from the first to the last one.
struct Fusion {
  std::vector<size_t> nodes;        // By position among those searched, ascending.
  std::string_view kind;            // Instead of an operator's name.
  std::vector<std::string> values;  // What it reads.
};

// All there are: rotary embeddings (rotations.h) and gated activations (gates.h). `values` tells of the graph's
// tensors, `kept` has what is used behind the nodes.
std::vector<Fusion> FindFusions(const std::vector<const exported::Node*>& nodes,
                                const std::map<std::string, exported::TensorMeta>& values,
                                const std::set<std::string>& kept);

// One node that stands for them, with the name, the results and the line of the last one.
exported::Node AsNode(const Fusion& fusion, const exported::Node& last);

// Null for a node that stands for none. REQUIRES: `slots` has what it reads.
std::unique_ptr<Instruction> MakeFusedCall(const exported::Node& node, Slots& slots, const Layouts& layouts);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_FUSIONS_H_
