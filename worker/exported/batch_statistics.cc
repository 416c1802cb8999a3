#include "worker/exported/batch_statistics.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace gpipe::worker {
namespace {

using exported::Node;

constexpr std::string_view kBatchNorms[] = {
    "torch.ops.aten.batch_norm.default",
    "torch.ops.aten.native_batch_norm.default",
    "torch.ops.aten._native_batch_norm_legit.default",
    "torch.ops.aten._native_batch_norm_legit.no_stats",
    "torch.ops.aten._batch_norm_impl_index.default",
    "torch.ops.aten.cudnn_batch_norm.default",
};

bool TakesStatistics(const Node& node) {
  if (std::ranges::find(kBatchNorms, node.target) == std::end(kBatchNorms)) return false;
  return std::ranges::any_of(node.inputs, [](const exported::NamedArgument& input) {
    const bool* on = std::get_if<bool>(&input.argument.value);
    return input.name == "training" && on != nullptr && *on;
  });
}

// Of its input [N, C, ...], all but C.
std::optional<v1::Dimension> CountFor(const exported::Graph& graph, const Node& node, const ValueTable& values) {
  const auto* input = std::get_if<exported::ValueName>(&node.inputs.front().argument.value);
  const auto meta = input == nullptr ? graph.values.end() : graph.values.find(input->name);
  if (meta == graph.values.end() || meta->second.sizes.size() < 2) return std::nullopt;
  std::vector<exported::Size> counted = meta->second.sizes;
  counted.erase(counted.begin() + 1);
  return values.ProductOf(counted);
}

}  // namespace

std::vector<v1::Dimension> ValuesPerChannel(const exported::Graph& graph, const Node& node, const ValueTable& values) {
  std::vector<v1::Dimension> counts;
  if (TakesStatistics(node)) {
    if (const auto count = CountFor(graph, node, values)) counts.push_back(*count);
  }
  for (const exported::NamedArgument& input : node.inputs) {
    const auto* region = std::get_if<std::shared_ptr<const exported::Graph>>(&input.argument.value);
    if (region == nullptr) continue;
    for (const Node& inner : (*region)->nodes) {
      const std::vector<v1::Dimension> more = ValuesPerChannel(**region, inner, values);
      counts.insert(counts.end(), more.begin(), more.end());
    }
  }
  return counts;
}

}  // namespace gpipe::worker
