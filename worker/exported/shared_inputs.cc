#include "worker/exported/shared_inputs.h"

#include <algorithm>
#include <cstddef>
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

// Those of one value, by position among the nodes.
struct Products {
  int count = 0;
  size_t first = 0, last = 0;
};

std::map<std::string, Products> ProductsIn(const PlacedNodes& nodes) {
  std::map<std::string, Products> products;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const std::string* value = InputOf(*nodes[i].second);
    if (value == nullptr) continue;
    Products& found = products[*value];
    if (found.count++ == 0) found.first = i;
    found.last = i;
  }
  return products;
}

// What is written to in between could be the value.
bool CanShare(const Products& products, const PlacedNodes& nodes) {
  const auto first = nodes.begin() + static_cast<std::ptrdiff_t>(products.first);
  const auto last = nodes.begin() + static_cast<std::ptrdiff_t>(products.last);
  return products.count > 1 && std::none_of(first, last, [](const auto& node) { return MayWrite(*node.second); });
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
  const std::map<std::string, Products> products = ProductsIn(nodes);
  std::map<std::string, std::string> shared;
  PlacedNodes result;
  for (const auto& [place, node] : nodes) {
    const std::string* value = InputOf(*node);
    if (value == nullptr || !CanShare(products.at(*value), nodes)) {
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
