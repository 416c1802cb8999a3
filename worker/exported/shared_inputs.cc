#include "worker/exported/shared_inputs.h"

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/exported/value_names.h"
#include "worker/exported/node_uses.h"
#include "worker/exported/operator_call.h"
#include "worker/model/shared_input.h"

namespace gpipe::worker {
namespace {

using exported::Node;

constexpr std::string_view kLinear = "torch.ops.aten.linear.default";
constexpr std::string_view kAddmm = "torch.ops.aten.addmm.default";
constexpr std::string_view kShared = "shared input";  // No operator's name.

// The argument that is multiplied by a weight; empty where the node is no such product.
std::string_view InputName(const Node& node) {
  if (node.target == kLinear) return "input";
  return node.target == kAddmm ? "mat1" : "";
}

const std::string* InputOf(const Node& product) {
  const std::string_view name = InputName(product);
  return name.empty() ? nullptr : ValueIn(exported::FindArgument(product, name));
}

Node Sharing(const Node& first, const std::string& value, const std::string& shared) {
  Node node;
  node.name = first.name;
  node.target = kShared;
  node.inputs = {{"", {exported::ValueName{value}}}};
  node.outputs = {{.names = {shared}}};
  node.source = first.source;
  return node;
}

Node Reading(const Node& product, const std::string& shared) {
  Node node = product;
  std::ranges::find(node.inputs, InputName(product), &exported::NamedArgument::name)->argument = {
      exported::ValueName{shared}};
  return node;
}

class SharedInputCall : public Instruction {
 public:
  SharedInputCall(size_t from, size_t to) : from_(from), to_(to) {}
  void Run(const LayerContext&, Frame& frame) const override { frame[to_] = ShareInput(frame[from_].toTensor()); }

 private:
  const size_t from_, to_;
};

}  // namespace

PlacedNodes WithSharedInputs(const PlacedNodes& nodes, std::deque<Node>& made) {
  std::map<std::string, int> products;
  for (const auto& [place, node] : nodes) {
    if (const std::string* value = InputOf(*node)) ++products[*value];
    if (MayWrite(*node)) return nodes;
  }
  std::map<std::string, std::string> shared;
  PlacedNodes result;
  for (const auto& [place, node] : nodes) {
    const std::string* value = InputOf(*node);
    if (value == nullptr || products.at(*value) < 2) {
      result.emplace_back(place, node);
      continue;
    }
    const auto [known, is_first] = shared.try_emplace(*value, absl::StrCat(*value, " shared"));
    if (is_first) result.emplace_back(place, &made.emplace_back(Sharing(*node, *value, known->second)));
    result.emplace_back(place, &made.emplace_back(Reading(*node, known->second)));
  }
  return result;
}

std::unique_ptr<Instruction> MakeSharedInput(const Node& node, Slots& slots) {
  if (node.target != kShared) return nullptr;
  return std::make_unique<SharedInputCall>(slots.Find(*ValueIn(&node.inputs.front().argument)),
                                           slots.Add(*OnlyResultOf(node)));
}

}  // namespace gpipe::worker
