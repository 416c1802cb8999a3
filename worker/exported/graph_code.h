#ifndef GPIPE_WORKER_EXPORTED_GRAPH_CODE_H_
#define GPIPE_WORKER_EXPORTED_GRAPH_CODE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "worker/exported/argument_source.h"
#include "worker/exported/frame.h"
#include "worker/exported/operator_call.h"

namespace gpipe::worker {

// The places of a graph's nodes, in the order in which they run, where `first` is that of the first: one after the
// other, and behind a node with regions the places of all nodes in these.
std::vector<uint64_t> PlacesOf(const exported::Graph& graph, uint64_t first);

// How many places these are.
uint64_t CountPlaces(const exported::Graph& graph);

// A run of a graph's nodes as a function from the values that enter to those that leave. Operators are found and values
// have their places before it runs; a value is let go of after its last use. Thread-compatible.
class GraphCode {
 public:
  // Nodes with their places in the whole program: what random operators are seeded with.
  struct Part {
    std::vector<std::pair<uint64_t, const exported::Node*>> nodes;  // In their order. Not needed after Compile.
    std::vector<std::string> entering;
    exported::ArgumentList leaving;
    const std::map<std::string, exported::TensorMeta>& values;  // Of the graph. Not needed after Compile.
  };

  // Lists every node that cannot be run, with its operator and source line.
  static absl::StatusOr<GraphCode> Compile(const Part& as_exported, const CompileOptions& options);

  // All nodes of a region that is itself at `place`.
  static absl::StatusOr<GraphCode> CompileRegion(const exported::Graph& graph, uint64_t place,
                                                 const CompileOptions& options);

  // `values` in the order of `entering`. Throws what LibTorch throws.
  std::vector<c10::IValue> Run(const LayerContext& context, std::vector<c10::IValue> values) const;

 private:
  struct Step {
    std::unique_ptr<Instruction> instruction;  // Null: nothing to do.
    std::string where;                         // For messages: node, operator, source line.
    std::vector<size_t> dead;                  // Not used after this step.
  };

  GraphCode() = default;
  absl::Status Add(uint64_t position, const exported::Node& node, Slots& slots, const Layouts& layouts,
                   const CompileOptions& options);
  absl::Status Leave(const exported::ArgumentList& leaving, const Slots& slots);
  void FindLastUses(const Part& part, const Slots& slots);

  std::vector<size_t> entering_;
  std::vector<Step> steps_;
  std::vector<ArgumentSource> leaving_;
  size_t slots_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_GRAPH_CODE_H_
