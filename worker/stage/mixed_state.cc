#include "worker/stage/mixed_state.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/precision_names.h"
#include "common/status_macros.h"
#include "worker/stage/masters.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

std::string MasterName(const NamedTensor& parameter) { return absl::StrCat(parameter.name, "/", kMasterSlot); }

absl::Status CopyFrom(const Values& state, const std::string& name, const at::Tensor& live) {
  const auto found = state.find(name);
  if (found == state.end()) return absl::NotFoundError(absl::StrCat("optimizer state: no tensor '", name, "'"));
  const at::Tensor& saved = found->second;
  if (saved.sizes() != live.sizes() || saved.scalar_type() != live.scalar_type()) {
    return absl::InvalidArgumentError(absl::StrCat("optimizer state: '", name, "' is not what is trained"));
  }
  live.copy_(saved);
  return absl::OkStatus();
}

}  // namespace

MixedState::MixedState(const Options& options, const std::vector<NamedTensor>& parameters) : options_(options) {
  if (options.precision.files_hold_masters) return;
  std::ranges::copy_if(parameters, std::back_inserter(rounded_),
                       [](const NamedTensor& parameter) { return parameter.master.defined(); });
}

std::vector<NamedTensor> MixedState::Scale() const {
  if (!options_.precision.mixed()) return {};
  if (options_.loss_scale == nullptr) return {{.name = kScaleOfBf16, .tensor = at::ones({}, at::kFloat)}};
  return {{.name = kScaleOfFp16, .tensor = options_.loss_scale->scale()},
          {.name = kGoodSteps, .tensor = options_.loss_scale->good_steps()}};
}

std::vector<NamedTensor> MixedState::State() const {
  std::vector<NamedTensor> state;
  if (options_.saves_scale) state = Scale();
  for (const NamedTensor& parameter : rounded_) {
    if (!parameter.owned) continue;
    state.push_back({.name = MasterName(parameter), .layer = parameter.layer, .tensor = parameter.master});
  }
  return state;
}

std::vector<std::string> MixedState::Names() const {
  std::vector<std::string> names;
  for (const NamedTensor& scale : Scale()) names.push_back(scale.name);
  for (const NamedTensor& parameter : rounded_) names.push_back(MasterName(parameter));
  return names;
}

absl::Status MixedState::Load(const Values& state) {
  return CatchTorch([&]() -> absl::Status {
    const torch::autograd::AutoGradMode no_grad(false);
    for (const NamedTensor& scale : Scale()) GPIPE_RETURN_IF_ERROR(CopyFrom(state, scale.name, scale.tensor));
    for (const NamedTensor& parameter : rounded_) {
      GPIPE_RETURN_IF_ERROR(CopyFrom(state, MasterName(parameter), parameter.master));
    }
    return RoundMasters(rounded_);
  });
}

}  // namespace gpipe::worker
