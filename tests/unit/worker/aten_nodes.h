#ifndef GPIPE_TESTS_UNIT_WORKER_ATEN_NODES_H_
#define GPIPE_TESTS_UNIT_WORKER_ATEN_NODES_H_

#include <string>
#include <utility>
#include <vector>

#include "common/exported/program.h"

namespace gpipe::worker {

// Nodes as torch.export has them, for tests of what looks for some.

inline exported::Argument Value(std::string name) { return {exported::ValueName{std::move(name)}}; }

// With one result, of its name. `target` is an operator of ATen's: `mul.Tensor`.
inline exported::Node AtenNode(const std::string& name, const std::string& target,
                               std::vector<exported::NamedArgument> inputs) {
  return {name, "torch.ops.aten." + target, std::move(inputs), {{.names = {name}}}, "", ""};
}

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_ATEN_NODES_H_
