#include "worker/exported/probe.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/exported/argument_source.h"
#include "worker/model/frozen.h"
#include "worker/model/meta_kernels.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// Two sizes tell how a dimension depends on the batch, the third one whether it depends in that way.
constexpr int64_t kBatches[] = {2, 3, 5};

constexpr std::string_view kAutocast = "torch.ops.higher_order.wrap_with_autocast";

// Whether a region computes in another type on some devices.
bool Autocasts(const exported::Graph& graph) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const exported::Node& node) {
    return node.target == kAutocast ||
           std::any_of(node.inputs.begin(), node.inputs.end(), [](const exported::NamedArgument& input) {
             const auto* region = std::get_if<std::shared_ptr<const exported::Graph>>(&input.argument.value);
             return region != nullptr && Autocasts(**region);
           });
  });
}

at::Tensor MetaOf(const at::Tensor& tensor) {
  return at::empty(tensor.sizes(), at::device(c10::kMeta).dtype(tensor.scalar_type()))
      .set_requires_grad(tensor.requires_grad());
}

}  // namespace

absl::Status Probe::Run(const std::vector<std::string>& values) {
  if (!Autocasts(archive_.program().graph) && RunOn(c10::kMeta, values).ok()) return absl::OkStatus();
  return RunOn(c10::kCPU, values);
}

absl::Status Probe::RunOn(c10::Device device, const std::vector<std::string>& values) {
  GraphLayer::Part part;
  part.nodes.resize(archive_.program().graph.nodes.size());
  std::iota(part.nodes.begin(), part.nodes.end(), size_t{0});
  for (const exported::UserInput& input : archive_.program().user_inputs) part.entering.push_back(input.value);
  part.leaving = values;
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<GraphLayer> layer, GraphLayer::Create(archive_, part, {device}));
  return CatchTorch([&] {
    RegisterMetaKernels();
    for (const LayerTensor& entry : layer->tensors()) {
      entry.tensor.set_requires_grad(entry.parameter && !IsFrozen(frozen_, entry.name));
    }
    runs_.clear();
    for (const int64_t batch : kBatches) runs_.push_back(RunOnce(*layer, values, batch, device));
    return absl::OkStatus();
  });
}

Probe::Values Probe::RunOnce(GraphLayer& layer, const std::vector<std::string>& values, int64_t batch,
                             c10::Device device) const {
  const torch::autograd::AutoGradMode with_grad(true);
  std::vector<at::Tensor> inputs;
  for (const v1::ModelValue& input : inputs_) {
    // Integers are indices; zero is one in every table.
    inputs.push_back(at::zeros(SizesFor(input.shape(), batch), at::device(device).dtype(ToScalarType(input.dtype()))));
  }
  const std::vector<at::Tensor> made = layer.Forward({.training = true}, std::move(inputs));
  Values metas;
  for (size_t i = 0; i < values.size(); ++i) metas[values[i]] = MetaOf(made[i]);
  return metas;
}

bool Probe::CanDescribe(const std::string& value) const {
  if (archive_.program().data_sized.contains(value)) return false;
  const int64_t dimensions = runs_.front().at(value).dim();
  const Shape shape = ShapeOf(value);
  for (size_t i = 0; i < runs_.size(); ++i) {
    const at::Tensor& meta = runs_[i].at(value);
    if (meta.dim() != dimensions || meta.sizes() != at::IntArrayRef(SizesFor(shape, kBatches[i]))) return false;
  }
  return true;
}

Shape Probe::ShapeOf(const std::string& value) const {
  const at::Tensor &first = runs_[0].at(value), &second = runs_[1].at(value);
  Shape shape;
  for (int64_t i = 0; i < std::min(first.dim(), second.dim()); ++i) {
    const int64_t per_sample = (second.size(i) - first.size(i)) / (kBatches[1] - kBatches[0]);
    v1::Dimension& dimension = *shape.Add();
    dimension.set_per_sample(per_sample);
    dimension.set_fixed(first.size(i) - kBatches[0] * per_sample);
  }
  return shape;
}

v1::ModelValue Probe::Describe(const std::string& value) const {
  const at::Tensor& meta = runs_.front().at(value);
  v1::ModelValue description;
  description.set_name(value);
  *description.mutable_shape() = ShapeOf(value);
  description.set_dtype(ToDataType(meta.scalar_type()));
  description.set_requires_grad(meta.requires_grad());
  return description;
}

at::Tensor Probe::Meta(const std::string& value, int64_t samples) const {
  return at::empty(SizesFor(ShapeOf(value), samples), runs_.front().at(value).options());
}

}  // namespace gpipe::worker
