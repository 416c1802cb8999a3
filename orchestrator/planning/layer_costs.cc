#include "orchestrator/planning/layer_costs.h"

#include <set>

#include "common/plan/shape.h"

namespace gpipe::orchestrator {
namespace {

// Copies of the trained parameters that the optimizer keeps.
int OptimizerSlots(const v1::Optimizer& optimizer) {
  if (optimizer.has_sgd()) return optimizer.sgd().momentum() > 0 ? 1 : 0;
  return 2;
}

// Gradients, and what the optimizer keeps, by the bytes of a trained parameter.
int CopiesOfTrained(const v1::JobSpec& spec) {
  return spec.has_train() ? 1 + OptimizerSlots(spec.train().optimizer()) : 0;
}

}  // namespace

int64_t StateBytes(const v1::JobSpec& spec, const v1::LayerInfo& layer) {
  if (!spec.has_train() || layer.parameter_count() == 0) return layer.parameter_bytes();
  const double trained = static_cast<double>(layer.trainable_count()) / layer.parameter_count();
  return layer.parameter_bytes() + static_cast<int64_t>(trained * CopiesOfTrained(spec) * layer.parameter_bytes());
}

int64_t RepeatedStateBytes(const v1::JobSpec& spec, std::span<const v1::LayerInfo> layers) {
  int64_t bytes = 0;
  std::set<std::string> seen;
  for (const v1::LayerInfo& layer : layers) {
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      if (seen.insert(tensor.name()).second) continue;
      const int64_t once = BytesFor(BatchShape({tensor.shape().begin(), tensor.shape().end()}), tensor.dtype(), 1);
      bytes += once * (1 + (tensor.trainable() ? CopiesOfTrained(spec) : 0));
    }
  }
  return bytes;
}

int64_t SavedBytes(const v1::LayerInfo& layer, int64_t samples) {
  return layer.activation_bytes_per_sample() * samples;
}

int64_t ValueBytes(const v1::ModelValue& value, int64_t samples) {
  return BytesFor(value.shape(), value.dtype(), samples);
}

const v1::ModelValue* DataOf(const std::string& input, const google::protobuf::RepeatedPtrField<v1::ModelValue>& data) {
  for (const v1::ModelValue& value : data) {
    if (value.name() == input) return &value;
  }
  return data.size() == 1 ? &data[0] : nullptr;
}

bool Recomputes(const v1::JobSpec& spec, int64_t micro_batches) {
  if (!spec.has_train()) return false;
  if (spec.pipeline().checkpoint() == v1::CHECKPOINT_ALWAYS) return true;
  return spec.pipeline().checkpoint() == v1::CHECKPOINT_EXCEPT_LAST && micro_batches > 1;
}

}  // namespace gpipe::orchestrator
