#include "worker/exported/part_profiler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/exported/value_names.h"
#include "common/status_macros.h"
#include "worker/exported/part_work.h"
#include "worker/model/frozen.h"
#include "worker/model/loss_profile.h"
#include "worker/model/random.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

constexpr uint64_t kSeed = 1;      // Of the values to measure with.
constexpr double kStandIn = 0.02;  // As large as the weights of real models.
// Operators that take a number out of a tensor, or check one.
constexpr std::string_view kChecks[] = {"torch.ops.aten.item.", "torch.ops.aten._local_scalar_dense.",
                                        "torch.ops.aten._assert"};
constexpr int64_t kRandomNumbers = 1 << 20;  // Then they repeat: to draw them all takes longer than to use them.

at::Tensor StandInFor(const at::Tensor& meta, c10::Device device) {
  const auto options = meta.options().device(device);
  if (!meta.is_floating_point() || c10::isFloat8Type(meta.scalar_type())) return at::zeros(meta.sizes(), options);
  const int64_t numbers = meta.numel();
  at::Tensor flat = at::empty({numbers}, options);
  at::Tensor drawn = flat.narrow(0, 0, std::min(numbers, kRandomNumbers));
  drawn.uniform_(-kStandIn, kStandIn, MakeGenerator(device, kSeed));
  for (int64_t at = kRandomNumbers; at < numbers; at += kRandomNumbers) {
    const int64_t size = std::min(kRandomNumbers, numbers - at);
    flat.narrow(0, at, size).copy_(drawn.narrow(0, 0, size));
  }
  return flat.view(meta.sizes());
}

}  // namespace

absl::StatusOr<LayerCost> PartProfiler::Measure(const GraphLayer::Part& part, const std::set<std::string>& read_later) {
  std::vector<ReadValue> inputs;
  for (const std::string& name : part.entering) {
    const at::Tensor meta = model_.values.Meta(name, request_.profile_micro_batch());
    inputs.push_back({meta, meta.requires_grad(), read_later.contains(name)});
  }
  const LayerWork work = WorkOf(model_.archive.program(), model_.values, part, request_.profile_micro_batch());
  absl::StatusOr<LayerCost> cost = profiler_.Measure(Describe(part), inputs, work, [&] { return Build(part); });
  if (cost.ok() || absl::IsResourceExhausted(cost.status()) || !DependsOnData(part)) return cost;
  return CatchTorch([&]() -> absl::StatusOr<LayerCost> { return profiler_.Estimate(work); });
}

absl::StatusOr<LayerCost> PartProfiler::MeasureLoss(const std::string& output) {
  return CatchTorch([&] {
    return worker::MeasureLoss(request_, model_.values.Meta(output, request_.profile_micro_batch()), profiler_);
  });
}

bool PartProfiler::DependsOnData(const GraphLayer::Part& part) const {
  return std::ranges::any_of(part.nodes, [&](size_t position) {
    const exported::Node& node = model_.archive.program().graph.nodes[position];
    if (std::ranges::any_of(kChecks, [&](std::string_view check) { return node.target.starts_with(check); }))
      return true;
    const std::vector<std::string> made = exported::ValuesMadeBy(node);
    return std::ranges::any_of(made, [&](const auto& name) { return model_.values.DependsOnData(name); });
  });
}

bool PartProfiler::IsTrained(const std::string& name) const {
  return model_.archive.IsTrainable(name) && !IsFrozen(request_.freeze(), name);
}

absl::StatusOr<ModelLayer> PartProfiler::Build(const GraphLayer::Part& part) const {
  GPIPE_ASSIGN_OR_RETURN(TensorPool stand_ins, StandIns(part));
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<GraphLayer> layer,
                         GraphLayer::Create(model_.archive, part, {device_}, &stand_ins));
  for (const LayerTensor& entry : layer->tensors()) {
    if (entry.parameter) entry.tensor.set_requires_grad(IsTrained(entry.name));
  }
  return ModelLayer{0, "exported", "", part.entering, part.leaving, std::move(layer)};
}

absl::StatusOr<TensorPool> PartProfiler::StandIns(const GraphLayer::Part& part) const {
  TensorPool pool;
  for (const exported::Input* input : model_.units.InputsOf(part)) {
    if (input->kind == exported::InputKind::kConstant) continue;
    const std::string& name = model_.archive.CanonicalName(input->name);
    if (input->kind != exported::InputKind::kParameter && model_.archive.HasValues(name)) continue;
    GPIPE_ASSIGN_OR_RETURN(const at::Tensor meta, model_.archive.Describe(name));
    pool[model_.archive.KeyOf(name)] = StandInFor(meta, device_);
  }
  return pool;
}

std::string PartProfiler::Describe(const GraphLayer::Part& part) const {
  std::string description;
  for (const size_t node : part.nodes) {
    absl::StrAppend(&description, model_.archive.program().graph.nodes[node].target, ";");
  }
  for (const exported::Input* input : model_.units.InputsOf(part)) {
    const auto sizes = model_.values.SizesOf(input->value, request_.profile_micro_batch());
    absl::StrAppend(&description, IsTrained(model_.archive.CanonicalName(input->name)) ? "t" : "f", "[",
                    sizes ? absl::StrJoin(*sizes, ",") : "", "]");
  }
  for (const std::string& name : part.leaving) {
    v1::ModelValue value = model_.values.Describe(name);
    value.clear_name();
    absl::StrAppend(&description, value.SerializeAsString());
  }
  return description;
}

}  // namespace gpipe::worker
