#include "worker/exported/gates.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "common/exported/value_names.h"
#include "worker/exported/operator_call.h"
#include "worker/model/gate.h"

namespace gpipe::worker {
namespace {

using exported::FindArgument;
using exported::Node;

constexpr std::string_view kMul = "torch.ops.aten.mul.Tensor";
constexpr std::string_view kSilu = "torch.ops.aten.silu.default";
constexpr std::string_view kGelu = "torch.ops.aten.gelu.default";

struct Kind {
  Activation activation;
  std::string_view name;
};

constexpr std::array<Kind, 3> kKinds = {{{Activation::kSilu, "gated silu"},
                                         {Activation::kGelu, "gated gelu"},
                                         {Activation::kGeluTanh, "gated gelu by tanh"}}};

std::string_view NameOf(Activation activation) {
  return std::ranges::find(kKinds, activation, &Kind::activation)->name;
}

// Nullopt for another approximation than PyTorch has today.
std::optional<Activation> ActivationOf(const Node& node) {
  if (node.target == kSilu) return Activation::kSilu;
  const exported::Argument* argument = FindArgument(node, "approximate");
  if (argument == nullptr) return Activation::kGelu;
  const auto* approximation = std::get_if<std::string>(&argument->value);
  if (approximation == nullptr) return std::nullopt;
  if (*approximation == "none") return Activation::kGelu;
  return *approximation == "tanh" ? std::optional(Activation::kGeluTanh) : std::nullopt;
}

}  // namespace

std::optional<Fusion> GateEndingWith(size_t last, const NodeUses& uses) {
  if (uses.node(last).target != kMul || OnlyResultOf(uses.node(last)) == nullptr) return std::nullopt;
  for (const auto& [activated, up] : uses.OperandsOf(last)) {
    std::optional<size_t> maker = uses.OnlyMakerOf(*activated, kSilu);
    if (!maker) maker = uses.OnlyMakerOf(*activated, kGelu);
    if (!maker || uses.TensorOf(*up) == nullptr || uses.MayWriteBetween(*maker, last)) continue;
    const std::optional<Activation> activation = ActivationOf(uses.node(*maker));
    const std::string* gate = ValueIn(FindArgument(uses.node(*maker), "self"));
    if (!activation || gate == nullptr) continue;
    return Fusion{{*maker, last}, NameOf(*activation), {*gate, *up}};
  }
  return std::nullopt;
}

bool IsGate(std::string_view kind) { return std::ranges::find(kKinds, kind, &Kind::name) != kKinds.end(); }

at::Tensor ComputeGate(std::string_view kind, const std::vector<at::Tensor>& values) {
  return Gate(std::ranges::find(kKinds, kind, &Kind::name)->activation, values[0], values[1]);
}

}  // namespace gpipe::worker
