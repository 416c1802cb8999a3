#ifndef GPIPE_WORKER_EXPORTED_ROTATIONS_H_
#define GPIPE_WORKER_EXPORTED_ROTATIONS_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/exported/program.h"
#include "worker/exported/frame.h"
#include "worker/exported/result_slot.h"

namespace gpipe::worker {

// Nodes that together rotate a tensor by its positions (worker/model/rotation.h), and that are done as one.
struct Rotation {
  std::vector<size_t> nodes;  // By position among those searched, ascending. It is done where the last one is.
  std::string x, cos, sin;
};

// Those whose own values nothing else uses. Nothing is written to from the first to the last node of one. `values`
// tells of the graph's tensors, `kept` has what is used behind the nodes.
std::vector<Rotation> FindRotations(const std::vector<const exported::Node*>& nodes,
                                    const std::map<std::string, exported::TensorMeta>& values,
                                    const std::set<std::string>& kept);

// One node that stands for them, with the name and the line of the last one.
exported::Node AsNode(const Rotation& rotation, const exported::Node& last);

// Null for any other node. REQUIRES: `slots` has what it reads.
std::unique_ptr<Instruction> MakeRotationCall(const exported::Node& node, Slots& slots, const Layouts& layouts);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_ROTATIONS_H_
