#include "worker/engine/asked_rounds.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/engine/all_names.h"
#include "worker/model/device_speed.h"
#include "worker/stage/masters.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using pipeline::RoundKind;

absl::Status CheckSamples(const std::string& what, const Values& values, const std::string& name, int64_t samples) {
  const auto found = values.find(name);
  if (found == values.end())
    return absl::InvalidArgumentError(absl::StrCat("the client gave no ", what, " '", name, "'"));
  const at::Tensor& value = found->second;
  if (value.dim() > 0 && value.size(0) == samples) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the client's ", what, " '", name, "' has ",
                                                 value.dim() == 0 ? 0 : value.size(0), " samples, not ", samples));
}

// Also of a parameter that another worker has too: each has its own part of that until an update.
std::vector<NamedTensor> GradientsOf(const HostedStages& stages) {
  std::vector<NamedTensor> gradients = stages.TrainableParameters();
  std::erase_if(gradients, [](const NamedTensor& parameter) { return !parameter.tensor.grad().defined(); });
  for (NamedTensor& parameter : gradients) parameter.tensor = parameter.tensor.grad();
  return gradients;
}

}  // namespace

absl::StatusOr<Batch> AskedRounds::Read(const RoundPlan& plan) {
  Batch batch;
  const bool backward = plan.round.kind == RoundKind::kBackward;
  const std::vector<ClientValue>& wanted = backward ? parts_.stages.given_gradients() : parts_.stages.given_inputs();
  if (!pipeline::TraitsOf(plan.round.kind).batch || wanted.empty()) return batch;
  std::vector<std::string> names;
  for (const ClientValue& value : wanted) names.push_back(value.name);
  GPIPE_ASSIGN_OR_RETURN(Values values, parts_.exchange.Read(plan.told.data(), names, parts_.device));
  for (const ClientValue& value : wanted) {
    GPIPE_RETURN_IF_ERROR(
        CheckSamples(backward ? "gradient of" : "input", values, value.name, plan.program->batch_size));
    // A value may be an output twice.
    at::Tensor& taken = batch.inputs[value.value];
    taken = taken.defined() ? taken + values[value.name] : std::move(values[value.name]);
  }
  return batch;
}

absl::StatusOr<v1::ArtifactRef> AskedRounds::Give(const RoundPlan& plan, const Values& made) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : made) tensors.push_back({.name = name, .tensor = tensor});
  return parts_.exchange.Write(plan.round.index, tensors);
}

absl::StatusOr<std::optional<v1::ArtifactRef>> AskedRounds::Do(const RoundPlan& plan) {
  switch (plan.round.kind) {
    case RoundKind::kZeroGradients:
      GPIPE_RETURN_IF_ERROR(ZeroGradients());
      return std::nullopt;
    case RoundKind::kDrop:
      GPIPE_RETURN_IF_ERROR(Drop(plan.told.forward()));
      return std::nullopt;
    case RoundKind::kGetState:
      return GetState(plan);
    case RoundKind::kSetState:
      GPIPE_RETURN_IF_ERROR(SetState(plan));
      return std::nullopt;
    default:
      return absl::InternalError("a round that no client asks for");
  }
}

absl::Status AskedRounds::ZeroGradients() {
  for (const NamedTensor& parameter : parts_.stages.TrainableParameters()) parameter.tensor.mutable_grad().reset();
  return absl::OkStatus();
}

absl::Status AskedRounds::Drop(int64_t forward) {
  for (const HostedStage& hosted : parts_.stages.all()) GPIPE_RETURN_IF_ERROR(hosted.stage->Drop(forward));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<NamedTensor>> AskedRounds::StateOf(v1::StateKind kind) const {
  switch (kind) {
    case v1::STATE_KIND_VALUES:
      return WithMasters(parts_.stages.OwnState());
    case v1::STATE_KIND_GRADIENTS:
      return GradientsOf(parts_.stages);
    case v1::STATE_KIND_OPTIMIZER:
      return OptimizerState();
    default:
      return absl::InternalError("a state that no client asks for");
  }
}

// Of which some tensors are made here, and the exchange reads what the device has done.
std::vector<NamedTensor> AskedRounds::OptimizerState() const {
  std::vector<NamedTensor> state = parts_.optimizer.State();
  SynchronizeDevice(parts_.device);
  return state;
}

std::vector<std::string> AskedRounds::OtherNames(v1::StateKind kind, const std::string& name) const {
  if (kind != v1::STATE_KIND_OPTIMIZER) return parts_.aliases(name);
  const size_t slot = std::min(name.rfind('/'), name.size());  // Behind the parameter's name.
  std::vector<std::string> names = parts_.aliases(name.substr(0, slot));
  for (std::string& other : names) other += name.substr(slot);
  return names;
}

absl::StatusOr<std::optional<v1::ArtifactRef>> AskedRounds::GetState(const RoundPlan& plan) {
  const v1::StateKind kind = plan.told.state();
  GPIPE_ASSIGN_OR_RETURN(std::vector<NamedTensor> state, CatchTorch([&] { return StateOf(kind); }));
  state = UnderAllNames(std::move(state), [&](const std::string& name) { return OtherNames(kind, name); });
  GPIPE_ASSIGN_OR_RETURN(const v1::ArtifactRef file, parts_.exchange.Write(plan.round.index, state));
  return file;
}

std::vector<std::string> AskedRounds::NamesOf(v1::StateKind kind) const {
  std::vector<std::string> names;
  const auto add = [&](const std::string& name) {
    names.push_back(name);
    for (std::string& other : OtherNames(kind, name)) names.push_back(std::move(other));
  };
  if (kind == v1::STATE_KIND_OPTIMIZER) {
    for (const std::string& name : parts_.optimizer.StateNames()) add(name);
  } else {
    for (const NamedTensor& tensor : parts_.stages.State()) add(tensor.name);
  }
  return names;
}

absl::Status AskedRounds::SetState(const RoundPlan& plan) {
  const v1::StateKind kind = plan.told.state();
  GPIPE_ASSIGN_OR_RETURN(const Values given, parts_.exchange.Read(plan.told.data(), NamesOf(kind), c10::kCPU));
  return CatchTorch([&] {
    if (kind == v1::STATE_KIND_OPTIMIZER) return SetOptimizer(given);
    return kind == v1::STATE_KIND_GRADIENTS ? SetGradients(given) : SetValues(given);
  });
}

const at::Tensor* AskedRounds::Find(const Values& given, v1::StateKind kind, const std::string& name) const {
  if (const auto found = given.find(name); found != given.end()) return &found->second;
  for (const std::string& other : OtherNames(kind, name)) {
    if (const auto found = given.find(other); found != given.end()) return &found->second;
  }
  return nullptr;
}

// Masters take the values as they are given; what is computed with is rounded from that.
absl::Status AskedRounds::SetValues(const Values& given) {
  const torch::autograd::AutoGradMode no_grad(false);
  const std::vector<NamedTensor> state = parts_.stages.State();
  for (const NamedTensor& tensor : WithMasters(state)) {
    const at::Tensor* value = Find(given, v1::STATE_KIND_VALUES, tensor.name);
    if (value == nullptr) continue;
    if (value->sizes() != tensor.tensor.sizes()) {
      return absl::InvalidArgumentError(absl::StrCat("the client's '", tensor.name, "' has another shape"));
    }
    tensor.tensor.copy_(*value);
  }
  return RoundMasters(state);
}

absl::Status AskedRounds::SetGradients(const Values& given) {
  for (const NamedTensor& parameter : parts_.stages.TrainableParameters()) {
    const at::Tensor* value = Find(given, v1::STATE_KIND_GRADIENTS, parameter.name);
    if (value == nullptr) continue;
    if (value->sizes() != parameter.tensor.sizes()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the client's gradient of '", parameter.name, "' has another shape"));
    }
    if (!parameter.owned) {  // The parts of all workers that share it are added up.
      parameter.tensor.mutable_grad().reset();
      continue;
    }
    const at::Tensor& type = parameter.master.defined() ? parameter.master : parameter.tensor;
    parameter.tensor.mutable_grad() = value->to(type.device(), type.scalar_type());
  }
  return absl::OkStatus();
}

absl::Status AskedRounds::SetOptimizer(const Values& given) {
  Values state;
  for (const std::string& name : parts_.optimizer.StateNames()) {
    if (const at::Tensor* tensor = Find(given, v1::STATE_KIND_OPTIMIZER, name)) state[name] = *tensor;
  }
  return parts_.optimizer.LoadState(state);
}

}  // namespace gpipe::worker
