#include "worker/exported/probe.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/match.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/exported/graph_layer.h"
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
  GPIPE_ASSIGN_OR_RETURN(small_, RunOnce(values, kSmallBatch));
  GPIPE_ASSIGN_OR_RETURN(large_, RunOnce(values, kLargeBatch));
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, at::Tensor>> Probe::RunOnce(const std::vector<std::string>& values,
                                                                 int64_t batch) {
  const exported::Program& program = archive_.program();
  GraphLayer::Part part;
  part.nodes.resize(program.graph.nodes.size());
  std::iota(part.nodes.begin(), part.nodes.end(), size_t{0});
  std::vector<at::Tensor> inputs;
  for (size_t i = 0; i < program.user_inputs.size(); ++i) {
    std::vector<int64_t> shape = {batch};
    shape.insert(shape.end(), inputs_[i].shape().begin(), inputs_[i].shape().end());
    // Integers are indices; zero is one in every table.
    inputs.push_back(at::zeros(shape, at::dtype(ToScalarType(inputs_[i].dtype()))));
    part.entering.push_back(program.user_inputs[i].value);
  }
  part.leaving = values;
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<GraphLayer> layer, GraphLayer::Create(archive_, part, {c10::kCPU}));
  return CatchTorch([&]() -> absl::StatusOr<std::map<std::string, at::Tensor>> {
    const torch::autograd::AutoGradMode with_grad(true);
    for (const LayerTensor& entry : layer->tensors()) {
      const bool frozen = std::any_of(frozen_.begin(), frozen_.end(),
                                      [&](const std::string& prefix) { return absl::StartsWith(entry.name, prefix); });
      entry.tensor.set_requires_grad(entry.parameter && !frozen);
    }
    std::vector<at::Tensor> made = layer->Forward({.training = true}, std::move(inputs));
    std::map<std::string, at::Tensor> metas;
    for (size_t i = 0; i < values.size(); ++i) metas[values[i]] = MetaOf(made[i]);
    return metas;
  });
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
