#ifndef GPIPE_WORKER_EXPORTED_UNITS_H_
#define GPIPE_WORKER_EXPORTED_UNITS_H_

#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/exported/archive.h"
#include "worker/exported/graph_layer.h"

namespace gpipe::worker {

// Where a program may be cut, and what each part then needs. A cut never
//   - splits a tensor from a view of it while one of the two is still written to,
//   - splits the users of a buffer that is written to,
//   - separates a number, such as a size, from its use.
// Cheap work on the model's inputs and constants alone (masks, positions, sizes) is no reason against a cut and belongs
// to nobody: each part does what it needs of it.
class Units {
 public:
  // REQUIRES: the program's operators exist (GraphCode::Compile). `archive` must outlive the units.
  static absl::StatusOr<Units> Find(const Archive& archive);

  // Positions of nodes, ascending, before which the program may be cut; never 0.
  const std::vector<size_t>& cuts() const { return cuts_; }

  // Tensors that are made before the cut at `position` and used after it, in the order in which they are made.
  std::vector<std::string> Crossing(size_t position) const;

  // The nodes [first, last) with what they need. What enters is the crossing values that they use and the model's
  // inputs; what leaves, those of their own values that are used behind them, and the program's `outputs`.
  GraphLayer::Part PartOf(size_t first, size_t last, const std::vector<std::string>& outputs) const;

  // Modules, also those that others lie in, by where the first of their nodes that belongs to a part is.
  struct Modules {
    std::vector<std::string> begin;   // At the first one of a run of nodes; outer modules before inner ones.
    std::vector<std::string> within;  // Behind it.
  };
  Modules ModulesOf(size_t first, size_t last) const;

  // The module that most of the nodes [first, last) share, for people: `transformer.h.4`.
  std::string ModuleOf(size_t first, size_t last) const;

 private:
  explicit Units(const exported::Program& program) : program_(program) {}

  // Values that depend on the model's inputs and constants only, and are not random.
  void FindRepeated();
  void FindUses();
  void FindModules();
  void FindCuts(const std::vector<std::pair<size_t, size_t>>& unbroken);
  // Nodes that make these values, as far as they are repeated, and those that make theirs.
  void AddRepeated(const std::string& value, std::set<size_t>& nodes) const;
  bool IsRepeated(const std::string& value) const;

  const exported::Program& program_;
  std::set<std::string> written_;        // Of the aliasing.
  std::set<std::string> written_state_;  // Of the aliasing.
  std::vector<bool> repeated_;           // By node.
  std::map<std::string, size_t> maker_;  // Node of each value; the program's inputs have none.
  std::map<std::string, size_t> last_use_;
  std::set<std::string> numbers_;
  std::map<size_t, std::vector<std::string>> modules_;  // By the first node that belongs to a part.
  std::vector<size_t> cuts_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_UNITS_H_
