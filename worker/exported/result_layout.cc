#include "worker/exported/result_layout.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "common/exported/value_names.h"
#include "worker/exported/exported_strides.h"

namespace gpipe::worker {
namespace {

using exported::Node;

// What is possible with some strides only, or means something else with others.
constexpr std::string_view kViews[] = {"torch.ops.aten.view.default",           "torch.ops.aten.view.dtype",
                                       "torch.ops.aten.view_as.default",        "torch.ops.aten._unsafe_view.default",
                                       "torch.ops.aten.unflatten.int",          "torch.ops.aten.as_strided.default",
                                       "torch.ops.aten.view_as_complex.default"};

const std::string* FirstValue(const Node& node) {
  if (node.inputs.empty()) return nullptr;
  const auto* value = std::get_if<exported::ValueName>(&node.inputs.front().argument.value);
  return value == nullptr ? nullptr : &value->name;
}

// Whether its first result is memory of its first argument.
bool IsOfItsArgument(const Node& node) {
  const auto handle = FindOperator(node);
  if (!handle.ok() || !*handle) return false;
  const std::vector<c10::Argument>& returns = (*handle)->schema().returns();
  return !returns.empty() && returns.front().alias_info() != nullptr;
}

using Nodes = std::vector<const Node*>;

class Makers {
 public:
  explicit Makers(const Nodes& nodes) {
    for (const Node* node : nodes) {
      for (const std::string& name : exported::ValuesMadeBy(*node)) makers_[name] = node;
    }
  }

  bool Make(const std::string& value) const { return makers_.contains(value); }

  // What the value is a view of, or the value.
  std::string Origin(std::string value) const {
    while (true) {
      const auto maker = makers_.find(value);
      const std::string* viewed =
          maker != makers_.end() && IsOfItsArgument(*maker->second) ? FirstValue(*maker->second) : nullptr;
      if (viewed == nullptr) return value;
      value = *viewed;
    }
  }

 private:
  std::map<std::string, const Node*> makers_;
};

// What a region is called with, by the positions of its graph's inputs: whatever is behind the last graph.
std::vector<std::string> Operands(const Node& node) {
  std::vector<std::string> operands;
  for (const exported::NamedArgument& input : node.inputs) {
    if (std::holds_alternative<std::shared_ptr<const exported::Graph>>(input.argument.value)) {
      operands.clear();
    } else {
      exported::AppendValues(input.argument, operands);
    }
  }
  return operands;
}

// The origins of what is viewed, within the regions of nodes too.
std::set<std::string> ViewedOrigins(const Nodes& nodes, const Makers& makers) {
  std::set<std::string> origins;
  for (const Node* node : nodes) {
    const std::string* first = FirstValue(*node);
    const bool views = std::ranges::find(kViews, node->target) != std::end(kViews);
    if (views && first != nullptr) origins.insert(makers.Origin(*first));
    for (const exported::NamedArgument& input : node->inputs) {
      const auto* region = std::get_if<std::shared_ptr<const exported::Graph>>(&input.argument.value);
      if (region == nullptr) continue;
      Nodes within;
      for (const Node& inner : (*region)->nodes) within.push_back(&inner);
      const std::set<std::string> viewed = ViewedOrigins(within, Makers(within));
      const std::vector<std::string> operands = Operands(*node);
      for (size_t i = 0; i < std::min(operands.size(), (*region)->inputs.size()); ++i) {
        if (viewed.contains((*region)->inputs[i])) origins.insert(makers.Origin(operands[i]));
      }
    }
  }
  return origins;
}

// Nullopt where it is not known. What is not dense, as a broadcast, is memory of something else after all.
std::optional<DimensionOrder> ExportedOrder(const exported::TensorMeta& meta, const exported::Symbols& symbols) {
  const auto known = StridesOf(meta, symbols);
  if (!known) return std::nullopt;
  for (size_t i = 0; i < known->sizes.size(); ++i) {  // An order says nothing where a dimension has no extent.
    const bool is_fixed = std::holds_alternative<int64_t>(meta.sizes[i]);
    if (known->sizes[i] < (is_fixed ? 1 : 2)) return std::nullopt;
  }
  return IsDense(known->sizes, known->strides) ? std::optional(OrderOf(known->sizes, known->strides)) : std::nullopt;
}

}  // namespace

Layouts ResultLayouts(const std::vector<std::pair<uint64_t, const Node*>>& nodes,
                      const std::map<std::string, exported::TensorMeta>& values, const exported::Symbols& symbols) {
  Nodes without_places;
  for (const auto& [place, node] : nodes) without_places.push_back(node);
  const Makers makers(without_places);
  Layouts layouts;
  for (const std::string& origin : ViewedOrigins(without_places, makers)) {
    const auto meta = values.find(origin);
    if (!makers.Make(origin) || meta == values.end()) continue;
    if (auto order = ExportedOrder(meta->second, symbols)) layouts.emplace(origin, *std::move(order));
  }
  return layouts;
}

}  // namespace gpipe::worker
