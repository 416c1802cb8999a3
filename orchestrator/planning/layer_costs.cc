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

// Per number: masters and, with them, gradients and the optimizer's state are fp32.
constexpr int64_t kMasterBytes = 4;

v1::DataType ComputeType(const v1::JobSpec& spec) {
  if (spec.train().precision() == v1::PRECISION_BF16) return v1::DATA_TYPE_BFLOAT16;
  return spec.train().precision() == v1::PRECISION_FP16 ? v1::DATA_TYPE_FLOAT16 : v1::DATA_TYPE_UNSPECIFIED;
}

// Whether an exported model's parameter has a master.
bool HasMaster(const v1::JobSpec& spec, const v1::ModelTensor& tensor) {
  return tensor.trainable() && ComputeType(spec) != v1::DATA_TYPE_UNSPECIFIED && tensor.dtype() == ComputeType(spec);
}

v1::ModelTensor OfType(v1::ModelTensor tensor, v1::DataType type) {
  tensor.set_dtype(type);
  return tensor;
}

int64_t BytesOf(const v1::ModelTensor& tensor) {
  return BytesFor(BatchShape({tensor.shape().begin(), tensor.shape().end()}), tensor.dtype(), 1);
}

// What an exported model's tensor takes with all that is kept beside it.
int64_t StateBytes(const v1::JobSpec& spec, const v1::ModelTensor& tensor) {
  const int64_t bytes = BytesOf(tensor);
  if (!tensor.trainable()) return bytes;
  if (!HasMaster(spec, tensor)) return bytes * (1 + CopiesOfTrained(spec));
  return bytes + BytesOf(OfType(tensor, v1::DATA_TYPE_FLOAT32)) * (1 + CopiesOfTrained(spec));
}

// What masters, and gradients and optimizer state in their type, take beyond what they would without.
int64_t MasterBytes(const v1::JobSpec& spec, const v1::LayerInfo& layer) {
  if (ComputeType(spec) == v1::DATA_TYPE_UNSPECIFIED) return 0;
  if (spec.model().has_exported()) {
    int64_t bytes = 0;
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      if (HasMaster(spec, tensor)) bytes += StateBytes(spec, tensor) - BytesOf(tensor) * (1 + CopiesOfTrained(spec));
    }
    return bytes;
  }
  // All parameters of a layer are cast, or none; what is frozen has a master, too, for the files.
  const bool cast = layer.parameter_bytes() < kMasterBytes * layer.parameter_count();
  if (!cast) return 0;
  const int64_t narrower = kMasterBytes - layer.parameter_bytes() / layer.parameter_count();
  return kMasterBytes * layer.parameter_count() + narrower * CopiesOfTrained(spec) * layer.trainable_count();
}

}  // namespace

int64_t StateBytes(const v1::JobSpec& spec, const v1::LayerInfo& layer) {
  if (!spec.has_train() || layer.parameter_count() == 0) return layer.parameter_bytes();
  const double trained = static_cast<double>(layer.trainable_count()) / layer.parameter_count();
  return layer.parameter_bytes() + static_cast<int64_t>(trained * CopiesOfTrained(spec) * layer.parameter_bytes()) +
         MasterBytes(spec, layer);
}

int64_t RepeatedStateBytes(const v1::JobSpec& spec, std::span<const v1::LayerInfo> layers) {
  int64_t bytes = 0;
  std::set<std::string> seen;
  for (const v1::LayerInfo& layer : layers) {
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      if (!seen.insert(tensor.name()).second) bytes += StateBytes(spec, tensor);
    }
  }
  return bytes;
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
  return spec.pipeline().checkpoint() != v1::CHECKPOINT_NEVER && micro_batches > 1;
}

}  // namespace gpipe::orchestrator
