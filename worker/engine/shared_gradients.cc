#include "worker/engine/shared_gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "common/plan/shared_tensors.h"
#include "common/status_macros.h"
#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

namespace {

// A gradient stays where it is, if there is one.
void SetGradient(const at::Tensor& parameter, at::Tensor sum) {
  at::Tensor& gradient = parameter.mutable_grad();
  if (!gradient.defined()) {
    gradient = std::move(sum);
  } else if (!gradient.is_alias_of(sum)) {
    gradient.copy_(sum);
  }
}

// A copy that no micro-batch has used has none.
at::Tensor GradientOf(const at::Tensor& parameter) {
  if (parameter.grad().defined()) return InOrder(parameter.grad(), {});
  return at::zeros(parameter.sizes(),
                   parameter.options().dtype(parameter.grad_dtype().value_or(parameter.scalar_type())));
}

}  // namespace

SharedGradients::SharedGradients(const v1::Plan& plan, const HostedStages& stages, const ChannelMap& channels,
                                 int worker)
    : worker_(worker) {
  const std::vector<NamedTensor> state = stages.State();
  for (const SharedTensor& shared : SharedTensors(plan)) {
    if (!shared.tensor->trainable() || std::ranges::find(shared.workers, worker) == shared.workers.end()) continue;
    const auto own = std::ranges::find(state, shared.tensor->name(), &NamedTensor::name);
    const auto group = std::ranges::find(channels.sharing, shared.workers, &SharingWorkers::workers);
    if (own != state.end() && group != channels.sharing.end()) shared_.push_back({own->tensor, &*group});
  }
}

absl::Status SharedGradients::Reduce(Communicator& communicator) const {
  const torch::autograd::AutoGradMode no_grad(false);
  for (const Shared& shared : shared_) {
    const bool first = shared.group->workers.front() == worker_;
    GPIPE_RETURN_IF_ERROR(first ? AddUp(shared, communicator) : SendAndTake(shared, communicator));
  }
  return absl::OkStatus();
}

void SharedGradients::KeepOne() const {
  for (const Shared& shared : shared_) {
    if (shared.group->workers.front() != worker_) shared.parameter.mutable_grad().reset();
  }
}

absl::Status SharedGradients::AddUp(const Shared& shared, Communicator& communicator) const {
  at::Tensor sum = GradientOf(shared.parameter);
  at::Tensor other = at::empty_like(sum);
  for (const int channel : shared.group->to_first) {
    GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<Work> receive, communicator.Receive(channel, other));
    GPIPE_RETURN_IF_ERROR(receive->Wait());
    sum.add_(other);
  }
  for (const int channel : shared.group->from_first) {
    GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<Work> send, communicator.Send(channel, sum));
    GPIPE_RETURN_IF_ERROR(send->Wait());
  }
  SetGradient(shared.parameter, std::move(sum));
  return absl::OkStatus();
}

absl::Status SharedGradients::SendAndTake(const Shared& shared, Communicator& communicator) const {
  const auto& workers = shared.group->workers;
  const auto place = std::ranges::find(workers, worker_) - workers.begin() - 1;
  const at::Tensor own = GradientOf(shared.parameter);
  at::Tensor sum = at::empty_like(own);
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<Work> send, communicator.Send(shared.group->to_first[place], own));
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<Work> receive,
                         communicator.Receive(shared.group->from_first[place], sum));
  GPIPE_RETURN_IF_ERROR(send->Wait());
  GPIPE_RETURN_IF_ERROR(receive->Wait());
  SetGradient(shared.parameter, std::move(sum));
  return absl::OkStatus();
}

}  // namespace gpipe::worker
