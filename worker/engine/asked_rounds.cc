#include "worker/engine/asked_rounds.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
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
  GPIPE_ASSIGN_OR_RETURN(Values values, parts_.exchange.Read(plan.told.data(), names));
  for (const ClientValue& value : wanted) {
    GPIPE_RETURN_IF_ERROR(
        CheckSamples(backward ? "gradient of" : "input", values, value.name, plan.program->batch_size));
    batch.inputs[value.value] = std::move(values[value.name]);
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

std::vector<NamedTensor> AskedRounds::StateOf(bool gradients) const {
  std::vector<NamedTensor> state;
  for (NamedTensor& tensor : gradients ? GradientsOf(parts_.stages) : WithMasters(parts_.stages.OwnState())) {
    for (const std::string& alias : parts_.aliases(tensor.name)) {
      state.push_back(tensor);
      state.back().name = alias;
    }
    state.push_back(std::move(tensor));
  }
  return state;
}

absl::StatusOr<std::optional<v1::ArtifactRef>> AskedRounds::GetState(const RoundPlan& plan) {
  GPIPE_ASSIGN_OR_RETURN(const v1::ArtifactRef file,
                         parts_.exchange.Write(plan.round.index, StateOf(plan.told.gradients())));
  return file;
}

absl::Status AskedRounds::SetState(const RoundPlan& plan) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : parts_.stages.State()) {
    names.push_back(tensor.name);
    for (const std::string& alias : parts_.aliases(tensor.name)) names.push_back(alias);
  }
  GPIPE_ASSIGN_OR_RETURN(const Values given, parts_.exchange.Read(plan.told.data(), names));
  return CatchTorch([&] { return plan.told.gradients() ? SetGradients(given) : SetValues(given); });
}

const at::Tensor* AskedRounds::Find(const Values& given, const std::string& name) const {
  if (const auto found = given.find(name); found != given.end()) return &found->second;
  for (const std::string& alias : parts_.aliases(name)) {
    if (const auto found = given.find(alias); found != given.end()) return &found->second;
  }
  return nullptr;
}

// Masters take the values as they are given; what is computed with is rounded from that.
absl::Status AskedRounds::SetValues(const Values& given) {
  const torch::autograd::AutoGradMode no_grad(false);
  const std::vector<NamedTensor> state = parts_.stages.State();
  for (const NamedTensor& tensor : WithMasters(state)) {
    const at::Tensor* value = Find(given, tensor.name);
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
    const at::Tensor* value = Find(given, parameter.name);
    if (value == nullptr) continue;
    if (value->sizes() != parameter.tensor.sizes()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the client's gradient of '", parameter.name, "' has another shape"));
    }
    const at::Tensor& type = parameter.master.defined() ? parameter.master : parameter.tensor;
    parameter.tensor.mutable_grad() = value->to(type.scalar_type());
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
