#include "worker/exported/deferred_statistics.h"

#include <torch/csrc/autograd/grad_mode.h>

namespace gpipe::worker {

void DeferredStatistics::Add(uint64_t position, const at::Tensor& input, const at::Tensor& running_mean,
                             const at::Tensor& running_var, double momentum) {
  const torch::autograd::AutoGradMode no_grad(false);
  Pending& pending = pending_[position];
  pending.statistics.Merge(ChannelStatistics::Of(input));
  pending.running_mean = running_mean;
  pending.running_var = running_var;
  pending.momentum = momentum;
}

void DeferredStatistics::Commit() {
  const torch::autograd::AutoGradMode no_grad(false);
  for (const auto& [position, pending] : pending_) {
    pending.statistics.MoveTo(pending.running_mean, pending.running_var, pending.momentum);
  }
  for (const auto& [position, batches] : counters_) batches.add_(1);
  pending_.clear();
  counters_.clear();
}

}  // namespace gpipe::worker
