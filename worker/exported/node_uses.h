#ifndef GPIPE_WORKER_EXPORTED_NODE_USES_H_
#define GPIPE_WORKER_EXPORTED_NODE_USES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/exported/program.h"

namespace gpipe::worker {

// Who makes and who uses the values of a run of nodes; for what looks for nodes that are done as one (fusions.h).
class NodeUses {
 public:
  // `values` tells of the graph's tensors, `kept` has what is used behind the nodes. All but `kept` outlive it.
  NodeUses(const std::vector<const exported::Node*>& nodes, const std::map<std::string, exported::TensorMeta>& values,
           const std::set<std::string>& kept);

  const exported::Node& node(size_t position) const { return *nodes_[position]; }
  // Null: it is no tensor, but maybe a number that was computed.
  const exported::TensorMeta* TensorOf(const std::string& value) const;

  // What makes the value, if that is such an operator and the value is used once.
  std::optional<size_t> OnlyMakerOf(const std::string& value, std::string_view target) const;
  // How often the results of the node are used.
  size_t UsesOf(size_t position) const;
  // Whether a node from the first one to the last one, which is left out, may write to what it is given.
  bool MayWriteBetween(size_t first, size_t last) const;

  // Both orders of the two values that the operator is given as `self` and `other`; none if one of them is no value.
  using Pairs = std::vector<std::pair<const std::string*, const std::string*>>;
  Pairs OperandsOf(size_t position) const;

 private:
  const std::vector<const exported::Node*>& nodes_;
  const std::map<std::string, exported::TensorMeta>& values_;
  std::map<std::string, size_t> makers_, uses_;
};

// The one value that is a result of the node; null if it has several, or one without a name.
const std::string* OnlyResultOf(const exported::Node& node);

// The name, where the argument is a value.
const std::string* ValueIn(const exported::Argument* argument);

// Nullopt for what is no constant; `otherwise` where it is left out or None.
std::optional<int64_t> IntegerOf(const exported::Node& node, std::string_view name, int64_t otherwise);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_NODE_USES_H_
