#include "worker/exported/fusions.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/exported/value_names.h"
#include "worker/exported/gates.h"
#include "worker/exported/node_uses.h"
#include "worker/exported/rotations.h"

namespace gpipe::worker {
namespace {

using exported::Node;
using Compute = at::Tensor (*)(std::string_view kind, const std::vector<at::Tensor>& values);

class FusedCall : public Instruction {
 public:
  FusedCall(Compute compute, std::string kind, std::vector<size_t> values, ResultSlot result)
      : compute_(compute), kind_(std::move(kind)), values_(std::move(values)), result_(std::move(result)) {}

  void Run(const LayerContext&, Frame& frame) const override {
    std::vector<at::Tensor> values;
    for (const size_t slot : values_) values.push_back(frame[slot].toTensor());
    result_.Store(compute_(kind_, values), frame);
  }

 private:
  const Compute compute_;
  const std::string kind_;
  const std::vector<size_t> values_;
  const ResultSlot result_;
};

Compute ComputeOf(const std::string& target) {
  if (IsRotation(target)) return &ComputeRotation;
  return IsGate(target) ? &ComputeGate : nullptr;
}

}  // namespace

std::vector<Fusion> FindFusions(const std::vector<const Node*>& nodes,
                                const std::map<std::string, exported::TensorMeta>& values,
                                const std::set<std::string>& kept) {
  const NodeUses uses(nodes, values, kept);
  std::vector<Fusion> fusions;
  std::set<size_t> taken;
  for (size_t i = 0; i < nodes.size(); ++i) {
    std::optional<Fusion> found = RotationEndingWith(i, uses);
    if (!found) found = GateEndingWith(i, uses);
    if (!found || std::ranges::any_of(found->nodes, [&](size_t node) { return taken.contains(node); })) continue;
    taken.insert(found->nodes.begin(), found->nodes.end());
    fusions.push_back(*std::move(found));
  }
  return fusions;
}

Node AsNode(const Fusion& fusion, const Node& last) {
  Node node = last;
  node.target = fusion.kind;
  node.inputs.clear();
  for (const std::string& value : fusion.values) node.inputs.push_back({"", {exported::ValueName{value}}});
  return node;
}

std::unique_ptr<Instruction> MakeFusedCall(const Node& node, Slots& slots, const Layouts& layouts) {
  const Compute compute = ComputeOf(node.target);
  if (compute == nullptr) return nullptr;
  std::vector<size_t> values;
  for (const std::string& name : exported::ValuesReadBy(node)) values.push_back(slots.Find(name));
  return std::make_unique<FusedCall>(compute, node.target, std::move(values),
                                     *ResultSlot::Create(*OnlyResultOf(node), slots, layouts));
}

}  // namespace gpipe::worker
