#include "worker/exported/result_layout.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "common/exported/value_names.h"

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

class Makers {
 public:
  explicit Makers(const std::vector<std::pair<uint64_t, const Node*>>& nodes) {
    for (const auto& [position, node] : nodes) {
      for (const std::string& name : exported::ValuesMadeBy(*node)) makers_[name] = node;
    }
  }

  // What the value is a view of, or the value; nullptr where that is made elsewhere.
  const std::string* Origin(const std::string* value) const {
    while (value != nullptr) {
      const auto maker = makers_.find(*value);
      if (maker == makers_.end()) return nullptr;
      if (!IsOfItsArgument(*maker->second)) return value;
      value = FirstValue(*maker->second);
    }
    return nullptr;
  }

 private:
  std::map<std::string, const Node*> makers_;
};

std::optional<DimensionOrder> ExportedOrder(const exported::TensorMeta& meta, const exported::Symbols& symbols) {
  const auto sizes = exported::EvaluateSizes(meta.sizes, symbols);
  const auto strides = exported::EvaluateSizes(meta.strides, symbols);
  if (!meta.strided || !sizes || !strides || sizes->size() != strides->size()) return std::nullopt;
  return OrderOf(*sizes, *strides);
}

}  // namespace

exported::Symbols AnySizes(const exported::Program& program) {
  constexpr int64_t kFirst = 3;
  exported::Symbols symbols;
  for (const exported::UserInput& input : program.user_inputs) {
    for (const exported::Size& size : input.meta.sizes) {
      const auto* expression = std::get_if<std::string>(&size);
      const auto symbol = expression == nullptr ? std::nullopt : exported::SymbolOf(*expression);
      if (symbol) symbols.emplace(*symbol, kFirst + static_cast<int64_t>(symbols.size()));
    }
  }
  return symbols;
}

Layouts ResultLayouts(const std::vector<std::pair<uint64_t, const Node*>>& nodes,
                      const std::map<std::string, exported::TensorMeta>& values, const exported::Symbols& symbols) {
  const Makers makers(nodes);
  Layouts layouts;
  for (const auto& [position, node] : nodes) {
    if (std::ranges::find(kViews, node->target) == std::end(kViews)) continue;
    const std::string* origin = makers.Origin(FirstValue(*node));
    if (origin == nullptr || !values.contains(*origin)) continue;
    if (auto order = ExportedOrder(values.at(*origin), symbols)) layouts.emplace(*origin, *std::move(order));
  }
  return layouts;
}

}  // namespace gpipe::worker
