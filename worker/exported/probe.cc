#include "worker/exported/probe.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <numeric>
#include <utility>

#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/model/frozen.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// Two sizes tell a dimension that is the batch from one that happens to be as large.
constexpr int64_t kSmallBatch = 2, kLargeBatch = 3;

at::Tensor MetaOf(const at::Tensor& tensor) {
  return at::empty(tensor.sizes(), at::device(c10::kMeta).dtype(tensor.scalar_type()))
      .set_requires_grad(tensor.requires_grad());
}

}  // namespace

absl::Status Probe::Run(const std::vector<std::string>& values) {
  GraphLayer::Part part;
  part.nodes.resize(archive_.program().graph.nodes.size());
  std::iota(part.nodes.begin(), part.nodes.end(), size_t{0});
  for (const exported::UserInput& input : archive_.program().user_inputs) part.entering.push_back(input.value);
  part.leaving = values;
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<GraphLayer> layer, GraphLayer::Create(archive_, part, {c10::kCPU}));
  return CatchTorch([&] {
    for (const LayerTensor& entry : layer->tensors()) {
      entry.tensor.set_requires_grad(entry.parameter && !IsFrozen(frozen_, entry.name));
    }
    small_ = RunOnce(*layer, values, kSmallBatch);
    large_ = RunOnce(*layer, values, kLargeBatch);
    return absl::OkStatus();
  });
}

std::map<std::string, at::Tensor> Probe::RunOnce(GraphLayer& layer, const std::vector<std::string>& values,
                                                 int64_t batch) const {
  const torch::autograd::AutoGradMode with_grad(true);
  std::vector<at::Tensor> inputs;
  for (const v1::ModelValue& input : inputs_) {
    std::vector<int64_t> shape = {batch};
    shape.insert(shape.end(), input.shape().begin(), input.shape().end());
    // Integers are indices; zero is one in every table.
    inputs.push_back(at::zeros(shape, at::dtype(ToScalarType(input.dtype()))));
  }
  const std::vector<at::Tensor> made = layer.Forward({.training = true}, std::move(inputs));
  std::map<std::string, at::Tensor> metas;
  for (size_t i = 0; i < values.size(); ++i) metas[values[i]] = MetaOf(made[i]);
  return metas;
}

bool Probe::BatchFirst(const std::string& value) const {
  const at::Tensor &small = small_.at(value), &large = large_.at(value);
  if (small.dim() == 0 || small.size(0) != kSmallBatch || large.size(0) != kLargeBatch) return false;
  return small.sizes().slice(1) == large.sizes().slice(1);
}

v1::ModelValue Probe::Describe(const std::string& value) const {
  const at::Tensor& meta = small_.at(value);
  v1::ModelValue description;
  description.set_name(value);
  for (const int64_t size : meta.sizes().slice(1)) description.add_shape(size);
  description.set_dtype(ToDataType(meta.scalar_type()));
  description.set_requires_grad(meta.requires_grad());
  return description;
}

at::Tensor Probe::Meta(const std::string& value, int64_t samples) const {
  const at::Tensor& meta = small_.at(value);
  std::vector<int64_t> shape = meta.sizes().vec();
  shape[0] = samples;
  return at::empty(shape, meta.options());
}

}  // namespace gpipe::worker
