#include "worker/exported/gradient_flow.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string_view>

#include "worker/exported/argument_source.h"
#include "worker/model/frozen.h"

namespace gpipe::worker {
namespace {

using exported::Node;

// They take a tensor, and what they make does not depend on its numbers, or is said not to.
constexpr std::string_view kWithoutGradient[] = {
    "torch.ops.aten.detach.default",     "torch.ops.aten.zeros_like.default", "torch.ops.aten.ones_like.default",
    "torch.ops.aten.empty_like.default", "torch.ops.aten.full_like.default",  "torch.ops.aten.rand_like.default",
    "torch.ops.aten.randn_like.default", "torch.ops.aten.new_zeros.default",  "torch.ops.aten.new_ones.default",
    "torch.ops.aten.new_empty.default",  "torch.ops.aten.new_full.default",
};

constexpr std::string_view kGradMode = "torch.ops.higher_order.wrap_with_set_grad_enabled";

// A region under torch.no_grad(). One that returns what it was given is none: that keeps its gradient.
bool IsWithoutGradients(const Node& node) {
  if (node.target != kGradMode || node.inputs.size() < 2) return false;
  const bool* enabled = std::get_if<bool>(&node.inputs[0].argument.value);
  const auto* region = std::get_if<std::shared_ptr<const exported::Graph>>(&node.inputs[1].argument.value);
  if (enabled == nullptr || *enabled || region == nullptr) return false;
  const std::vector<std::string>& given = (*region)->inputs;
  return std::ranges::none_of((*region)->outputs, [&](const exported::Argument& output) {
    const auto* value = std::get_if<exported::ValueName>(&output.value);
    return value != nullptr && std::ranges::find(given, value->name) != given.end();
  });
}

bool CanHaveGradients(const Node& node) {
  const bool never = std::ranges::find(kWithoutGradient, node.target) != std::end(kWithoutGradient);
  return !never && !IsWithoutGradients(node);
}

class Flow {
 public:
  Flow(const Archive& archive, const ValueIndex& index, const Aliasing& aliasing)
      : archive_(archive), program_(archive.program()), index_(index), aliasing_(aliasing), has_(index.size()) {}

  std::vector<bool> Run(const GradientGoals& goals) {
    for (size_t i = 0; i < index_.inputs(); ++i) {
      const exported::Input& input = program_.inputs[i];
      if (goals.inputs.contains(input.value)) Mark(i);
      if (input.kind != exported::InputKind::kParameter) continue;
      const std::string& name = archive_.CanonicalName(input.name);
      if (archive_.IsTrainable(name) && !IsFrozen(goals.frozen, name)) Mark(i);
    }
    for (size_t i = 0; i < program_.graph.nodes.size(); ++i) Follow(i);
    for (size_t value = 0; value < index_.size(); ++value) has_[value] = Has(value);
    return has_;
  }

 private:
  void Follow(size_t node) {
    const std::vector<size_t>& read = index_.ReadBy(node);
    if (std::none_of(read.begin(), read.end(), [this](size_t value) { return Has(value); })) return;
    if (!CanHaveGradients(program_.graph.nodes[node])) return;
    for (const size_t value : index_.MadeBy(node)) {
      if (IsDifferentiable(value)) Mark(value);
    }
  }

  // What is written into memory is seen through all of its names, also those from before.
  void Mark(size_t value) {
    has_[value] = true;
    if (const auto memory = aliasing_.written.find(index_.NameOf(value)); memory != aliasing_.written.end()) {
      written_.insert(memory->second);
    }
  }

  bool Has(size_t value) const {
    if (has_[value] || written_.empty()) return has_[value];
    const auto memory = aliasing_.written.find(index_.NameOf(value));
    return memory != aliasing_.written.end() && written_.contains(memory->second);
  }

  bool IsDifferentiable(size_t value) const {
    if (index_.IsNumber(value)) return false;
    const auto meta = program_.graph.values.find(index_.NameOf(value));
    if (meta == program_.graph.values.end()) return true;
    const auto type = ToScalarType(meta->second.dtype);
    return !type || c10::isFloatingType(*type) || c10::isComplexType(*type);
  }

  const Archive& archive_;
  const exported::Program& program_;
  const ValueIndex& index_;
  const Aliasing& aliasing_;
  std::vector<bool> has_;
  std::set<size_t> written_;  // Memory that is written to, by its number in the aliasing, with a gradient in it.
};

}  // namespace

std::vector<bool> FindGradients(const Archive& archive, const ValueIndex& index, const Aliasing& aliasing,
                                const GradientGoals& goals) {
  return Flow(archive, index, aliasing).Run(goals);
}

}  // namespace gpipe::worker
