#include "worker/stage/masters.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "worker/torch_status.h"

namespace gpipe::worker {

void GiveMaster(const Precision& precision, Values* pool, NamedTensor& parameter) {
  if (!parameter.trainable) return;
  if (!parameter.master.defined() && precision.has_master(parameter.tensor.scalar_type())) {
    at::Tensor own;
    at::Tensor& known = pool == nullptr ? own : (*pool)[parameter.name];
    if (!known.defined()) known = parameter.tensor.detach().to(Precision::kMaster);
    parameter.master = known;
  }
  if (parameter.master.defined()) parameter.tensor.set_grad_dtype(Precision::kMaster);
}

std::vector<NamedTensor> WithMasters(std::vector<NamedTensor> state) {
  for (NamedTensor& named : state) {
    if (named.master.defined()) named.tensor = named.master;
  }
  return state;
}

absl::Status RoundMasters(const std::vector<NamedTensor>& state) {
  std::vector<at::Tensor> rounded, masters;
  for (const NamedTensor& named : state) {
    if (!named.master.defined()) continue;
    rounded.push_back(named.tensor);
    masters.push_back(named.master);
  }
  if (masters.empty()) return absl::OkStatus();
  return CatchTorch([&] {
    const torch::autograd::AutoGradMode no_grad(false);
    at::_foreach_copy_(rounded, masters);
    return absl::OkStatus();
  });
}

}  // namespace gpipe::worker
