#include "orchestrator/planning/layer_costs.h"

#include <algorithm>

#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {
namespace {

// Copies of the trained parameters that the optimizer keeps.
int OptimizerSlots(const v1::Optimizer& optimizer) {
  if (optimizer.has_sgd()) return optimizer.sgd().momentum() > 0 ? 1 : 0;
  return 2;
}

int64_t StateBytes(const v1::JobSpec& spec, const v1::LayerInfo& layer) {
  if (!spec.has_train() || layer.parameter_count() == 0) return layer.parameter_bytes();
  const double trained = static_cast<double>(layer.trainable_count()) / layer.parameter_count();
  const int copies = 1 + OptimizerSlots(spec.train().optimizer());  // One is the gradient.
  return layer.parameter_bytes() + static_cast<int64_t>(trained * copies * layer.parameter_bytes());
}

// Micro-batches whose activations are kept at the same time. With recomputation it is the one being computed again.
int64_t KeptMicroBatches(const v1::JobSpec& spec, int64_t micro_batches) {
  if (!spec.has_train()) return 1;
  return spec.pipeline().checkpoint() == v1::CHECKPOINT_NEVER ? micro_batches : 1;
}

bool Recomputes(const v1::JobSpec& spec, int64_t micro_batches) {
  if (spec.pipeline().checkpoint() == v1::CHECKPOINT_ALWAYS) return true;
  return spec.pipeline().checkpoint() == v1::CHECKPOINT_EXCEPT_LAST && micro_batches > 1;
}

}  // namespace

PassSeconds SecondsOf(const v1::JobSpec& spec, const v1::LayerInfo& layer) {
  PassSeconds seconds{.forward = layer.forward_nanos() * 1e-9};
  if (spec.has_train()) seconds.backward = layer.backward_nanos() * 1e-9;
  return seconds;
}

std::vector<pipeline::LayerCost> LayerCosts(const v1::JobSpec& spec, const InputFacts& facts,
                                            const std::vector<v1::LayerInfo>& layers) {
  const int64_t micro_batch = LargestMicroBatch(spec, facts);
  const int64_t batch = spec.has_train() ? spec.train().batch_size() : spec.infer().batch_size();
  const int64_t micro_batches = std::max<int64_t>(1, std::min({batch, facts.samples, spec.pipeline().chunks()}));
  const bool again = spec.has_train() && Recomputes(spec, micro_batches);
  std::vector<pipeline::LayerCost> costs;
  for (const v1::LayerInfo& layer : layers) {
    const PassSeconds seconds = SecondsOf(spec, layer);
    const int64_t saved = layer.activation_bytes_per_sample() * micro_batch * KeptMicroBatches(spec, micro_batches);
    costs.push_back({.seconds = seconds.forward * (again ? 2 : 1) + seconds.backward,
                     .memory_bytes = StateBytes(spec, layer) + saved});
  }
  return costs;
}

}  // namespace gpipe::orchestrator
