#include "worker/exported/part_work.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string_view>

#include "common/exported/value_names.h"

namespace gpipe::worker {
namespace {

using exported::Node;
using Sizes = std::vector<int64_t>;

double Product(const Sizes& sizes) { return std::accumulate(sizes.begin(), sizes.end(), 1.0, std::multiplies<>()); }

// The sizes of a node's argument by its position among its tensors; empty when they are not known.
class Shapes {
 public:
  Shapes(const ValueTable& values, const Node& node, int64_t samples) {
    for (const std::string& name : exported::ValuesReadBy(node)) read_.push_back(values.SizesOf(name, samples));
    for (const std::string& name : exported::ValuesMadeBy(node)) made_.push_back(values.SizesOf(name, samples));
  }

  Sizes Read(size_t position) const { return position < read_.size() ? read_[position].value_or(Sizes()) : Sizes(); }
  Sizes Made() const { return made_.empty() ? Sizes() : made_.front().value_or(Sizes()); }

 private:
  std::vector<std::optional<Sizes>> read_, made_;
};

// Each element of the result is a sum over the last dimension of the argument at `kPosition`.
template <size_t kPosition>
double ProductFlops(const Shapes& shapes) {
  const Sizes operand = shapes.Read(kPosition), made = shapes.Made();
  return operand.empty() || made.empty() ? 0 : 2 * Product(made) * static_cast<double>(operand.back());
}

// Of the weight [out, in / groups, ...], all but the first dimension.
double ConvolutionFlops(const Shapes& shapes) {
  const Sizes weight = shapes.Read(1);
  if (weight.empty() || weight.front() == 0) return 0;
  return 2 * Product(shapes.Made()) * Product(weight) / static_cast<double>(weight.front());
}

// Queries [..., L, E] with keys [..., S, E], and the weights with values [..., S, E].
double AttentionFlops(const Shapes& shapes) {
  const Sizes query = shapes.Read(0), key = shapes.Read(1);
  return query.size() < 2 || key.size() < 2 ? 0 : 4 * Product(query) * static_cast<double>(key[key.size() - 2]);
}

constexpr std::pair<std::string_view, double (*)(const Shapes&)> kProducts[] = {
    {"torch.ops.aten.linear.default", ProductFlops<0>},
    {"torch.ops.aten.matmul.default", ProductFlops<0>},
    {"torch.ops.aten.mm.default", ProductFlops<0>},
    {"torch.ops.aten.bmm.default", ProductFlops<0>},
    {"torch.ops.aten.addmm.default", ProductFlops<1>},
    {"torch.ops.aten.baddbmm.default", ProductFlops<1>},
    {"torch.ops.aten.conv1d.default", ConvolutionFlops},
    {"torch.ops.aten.conv2d.default", ConvolutionFlops},
    {"torch.ops.aten.conv3d.default", ConvolutionFlops},
    {"torch.ops.aten.scaled_dot_product_attention.default", AttentionFlops},
};

double FlopsOf(const ValueTable& values, const Node& node, int64_t samples) {
  const auto* found = std::find_if(std::begin(kProducts), std::end(kProducts),
                                   [&](const auto& product) { return product.first == node.target; });
  return found == std::end(kProducts) ? 0 : found->second(Shapes(values, node, samples));
}

double BytesOf(const ValueTable& values, const std::vector<std::string>& names, int64_t samples) {
  double bytes = 0;
  for (const std::string& name : names) {
    const auto sizes = values.SizesOf(name, samples);
    const auto type = values.TypeOf(name);
    if (sizes && type) bytes += Product(*sizes) * static_cast<double>(c10::elementSize(*type));
  }
  return bytes;
}

}  // namespace

LayerWork WorkOf(const exported::Program& program, const ValueTable& values, const GraphLayer::Part& part,
                 int64_t samples) {
  LayerWork work;
  for (const size_t position : part.nodes) {
    const Node& node = program.graph.nodes[position];
    const std::vector<std::string> made = exported::ValuesMadeBy(node);
    const double flops = FlopsOf(values, node, samples);
    const double made_bytes = BytesOf(values, made, samples);
    work.flops += flops;
    work.bytes += BytesOf(values, exported::ValuesReadBy(node), samples) + made_bytes;
    work.made_bytes += made_bytes;
    if (flops > 0 && !made.empty()) work.type = values.TypeOf(made.front()).value_or(work.type);
  }
  return work;
}

}  // namespace gpipe::worker
