#ifndef GPIPE_WORKER_EXPORTED_UNITS_H_
#define GPIPE_WORKER_EXPORTED_UNITS_H_

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "worker/exported/aliasing.h"
#include "worker/exported/archive.h"
#include "worker/exported/graph_layer.h"
#include "worker/exported/value_index.h"

namespace gpipe::worker {

// Where a program may be cut, and what each part then needs. A cut never
//   - splits a tensor from a view of it while one of the two is still written to,
//   - splits the users of a buffer that is written to,
//   - separates a number, such as a size, from its use,
//   - splits nodes that are done as one (fusions.h).
// Cheap work on the model's inputs and constants alone (masks, positions, sizes) is no reason against a cut and belongs
// to nobody: each part does what it needs of it.
class Units {
 public:
  // REQUIRES: the program's operators exist (GraphCode::Compile). `archive` must outlive the units.
  static absl::StatusOr<Units> Find(const Archive& archive);

  // Positions of nodes, ascending, before which the program may be cut; never 0.
  const std::vector<size_t>& cuts() const { return cuts_; }

  // Those of the cuts that only tensors with `can_cross` cross: made before the cut and used after it.
  std::vector<size_t> CutsWhere(absl::FunctionRef<bool(const std::string&)> can_cross) const;

  // The nodes [first, last) with what they need. What enters is the model's inputs and values made before `first` that
  // they use, in the order in which they are made; what leaves, those of their own values that are used behind them,
  // and the program's `outputs`. Takes time for these nodes only.
  GraphLayer::Part PartOf(size_t first, size_t last, const std::vector<std::string>& outputs) const;

  // What the nodes of a part are bound to: the parameters, buffers and constants that they read or that leave it as
  // they are, in the program's order. `part` is one of PartOf's.
  std::vector<const exported::Input*> InputsOf(const GraphLayer::Part& part) const;

  // Modules, also those that others lie in, by where the first of their nodes that belongs to a part is.
  struct Modules {
    std::vector<std::string> begin;   // At the first one of a run of nodes; outer modules before inner ones.
    std::vector<std::string> within;  // Behind it.
  };
  Modules ModulesOf(size_t first, size_t last) const;

  // The module that most of the nodes [first, last) share, for people: `transformer.h.4`.
  std::string ModuleOf(size_t first, size_t last) const;

  const ValueIndex& index() const { return index_; }
  const Aliasing& aliasing() const { return aliasing_; }

 private:
  Units(const exported::Program& program, Aliasing aliasing)
      : program_(program), index_(program), aliasing_(std::move(aliasing)) {}

  // Values that depend on the model's inputs and constants only, and are not random.
  void FindRepeated();
  void FindUses();
  void FindModules();
  void FindCuts();
  bool IsWritten(size_t value) const { return aliasing_.written.contains(index_.NameOf(value)); }
  bool IsRepeated(size_t value) const { return value >= index_.inputs() && repeated_[index_.MakerOf(value)]; }
  // Nodes that make these values, as far as they are repeated, and those that make theirs.
  void AddRepeated(size_t value, std::set<size_t>& nodes) const;
  // Those of [first, last) that belong to it, and the repeated ones that they need.
  std::set<size_t> NodesOf(size_t first, size_t last, const std::set<size_t>& outputs) const;
  // The program's outputs, when `last` is its end.
  std::set<size_t> OutputsOf(size_t last, const std::vector<std::string>& outputs) const;
  // What the aliasing says of a value of the part.
  void AddWritten(size_t value, GraphLayer::Part& part) const;

  const exported::Program& program_;
  ValueIndex index_;
  Aliasing aliasing_;
  std::vector<bool> repeated_;    // By node.
  std::vector<size_t> last_use_;  // By value: the last node that is not repeated, the number of nodes for an output.
  std::map<size_t, std::vector<std::string>> modules_;  // By the first node that belongs to a part.
  std::vector<size_t> cuts_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_UNITS_H_
