#include "worker/stage/stage_gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <utility>

namespace gpipe::worker {

void StageGradients::Keep(const std::vector<NamedTensor>& state, bool keep) {
  if (std::exchange(keep_, keep) == keep) return;
  for (const NamedTensor& named : state) keep ? held_.Hold(named.tensor) : held_.LetGo(named.tensor);
}

void StageGradients::Attach(const std::vector<NamedTensor>& state) const {
  const torch::autograd::AutoGradMode no_grad(false);
  for (const NamedTensor& named : state) held_.Attach(named.tensor);
}

void StageGradients::Reset(const std::vector<NamedTensor>& state) const {
  const torch::autograd::AutoGradMode no_grad(false);
  std::vector<at::Tensor> held;
  for (const NamedTensor& named : state) {
    at::Tensor& gradient = named.tensor.mutable_grad();
    if (!gradient.defined()) continue;
    held_.Has(named.tensor) ? held.push_back(gradient) : gradient.reset();
  }
  if (!held.empty()) at::_foreach_zero_(held);
}

}  // namespace gpipe::worker
