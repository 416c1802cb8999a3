#include "worker/engine/shared_gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <utility>

#include "common/plan/shared_tensors.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

SharedGradients::SharedGradients(const v1::Plan& plan, const HostedStages& stages, c10::Device device)
    : device_(device) {
  const std::vector<NamedTensor> state = stages.State();
  for (const SharedTensor& shared : SharedTensors(plan)) {
    if (!shared.tensor->trainable()) continue;
    Shared& added = shared_.emplace_back();
    added.shape.assign(shared.tensor->shape().begin(), shared.tensor->shape().end());
    added.dtype = ToScalarType(shared.tensor->dtype());
    for (const NamedTensor& own : state) {
      if (own.name == shared.tensor->name()) added.parameter = own.tensor;
    }
  }
}

absl::Status SharedGradients::Reduce(Communicator& communicator) const {
  const torch::autograd::AutoGradMode no_grad(false);
  for (const Shared& shared : shared_) {
    const bool has_gradient = shared.parameter.defined() && shared.parameter.grad().defined();
    at::Tensor sum = has_gradient ? InOrder(shared.parameter.grad(), {})
                                  : at::zeros(shared.shape, at::device(device_).dtype(shared.dtype));
    GPIPE_RETURN_IF_ERROR(communicator.AllReduceSum(sum));
    if (shared.parameter.defined()) shared.parameter.mutable_grad() = std::move(sum);
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
