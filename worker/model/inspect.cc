#include "worker/model/inspect.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/grpc_status.h"
#include "common/plan/shape.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/model/frozen.h"
#include "worker/model/loss_check.h"
#include "worker/model/loss_profile.h"
#include "worker/model/model_layers.h"
#include "worker/model/profile.h"
#include "worker/model/tensor_layout.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

constexpr int64_t kBatch = 2;

// A tensor with `batch` samples, without memory.
absl::StatusOr<at::Tensor> MetaTensor(const char* what, const std::vector<int64_t>& sample, v1::DataType dtype,
                                      int64_t batch) {
  const auto type = ToScalarType(dtype);
  if (type == c10::ScalarType::Undefined) return absl::InvalidArgumentError(absl::StrCat(what, " has no type"));
  std::vector<int64_t> shape = {batch};
  shape.insert(shape.end(), sample.begin(), sample.end());
  auto tensor =
      CatchTorch([&]() -> absl::StatusOr<at::Tensor> { return at::empty(shape, at::device(at::kMeta).dtype(type)); });
  if (!tensor.ok()) return absl::InvalidArgumentError(absl::StrCat(what, ": ", tensor.status().message()));
  return tensor;
}

// Walks one model once; see InspectModel.
class Inspection {
 public:
  Inspection(const v1::Inspect& request, c10::Device device, v1::Inspected& result)
      : request_(request),
        precision_(Precision::Of(request.precision(), /*layer_list=*/true)),
        device_(device),
        result_(result) {
    v1::JobSpec spec;
    *spec.mutable_model() = request.model();
    spec_ = spec::WithDefaults(spec);
  }

  absl::Status Run() {
    GPIPE_ASSIGN_OR_RETURN(layers_,
                           BuildSequential(spec_, {0, spec_.model().sequential_size(), false, at::kMeta, precision_}));
    GPIPE_RETURN_IF_ERROR(FindShapes());
    GPIPE_RETURN_IF_ERROR(CheckLoss());
    return request_.profile_micro_batch() > 0 ? Profile() : absl::OkStatus();
  }

 private:
  absl::Status FindShapes() {
    if (request_.inputs_size() != 1) return absl::InvalidArgumentError("a layer list has one input");
    const v1::ModelValue& input = request_.inputs(0);
    GPIPE_ASSIGN_OR_RETURN(values_["input"],
                           MetaTensor("the input", SampleShape(input.shape()), input.dtype(), kBatch));
    if (precision_.mixed() && values_["input"].is_floating_point()) {
      values_["input"] = values_["input"].to(precision_.compute);
    }
    trained_ = input.requires_grad();
    for (const ModelLayer& layer : layers_) {
      GPIPE_RETURN_IF_ERROR(FindOutputs(layer));
      Describe(layer);
    }
    return absl::OkStatus();
  }

  absl::Status FindOutputs(const ModelLayer& layer) {
    const std::string path = spec::LayerPath(spec_, layer.index);
    std::vector<at::Tensor> inputs;
    for (const std::string& name : layer.inputs) {
      const auto found = values_.find(name);
      if (found == values_.end()) return FieldError(path, absl::StrCat("nothing before it makes '", name, "'"));
      inputs.push_back(found->second);
    }
    auto outputs =
        CatchTorch([&]() -> absl::StatusOr<std::vector<at::Tensor>> { return layer.layer->Forward({}, inputs); });
    if (!outputs.ok()) return FieldError(path, std::string(outputs.status().message()));
    if (outputs->front().dim() == 0 || outputs->front().size(0) != kBatch) {
      return FieldError(path, "does not keep the batch as the first dimension");
    }
    for (size_t i = 0; i < outputs->size(); ++i) values_[layer.outputs[i]] = (*outputs)[i];
    return absl::OkStatus();
  }

  bool Frozen(const ModelLayer& layer, const LayerTensor& parameter) const {
    return IsFrozen(request_.freeze(), layer.prefix + parameter.name);
  }

  void Describe(const ModelLayer& layer) {
    v1::LayerInfo& info = *result_.add_layers();
    info.set_kind(layer.kind);
    int64_t count = 0, bytes = 0, trainable = 0;
    for (const LayerTensor& entry : layer.layer->tensors()) {
      v1::ModelTensor& tensor = *info.add_tensors();
      Describe(layer.prefix + entry.name, entry.master.defined() ? entry.master : entry.tensor, tensor);
      tensor.set_trainable(entry.parameter && !Frozen(layer, entry));
      if (!entry.parameter) continue;
      count += entry.tensor.numel();
      bytes += static_cast<int64_t>(entry.tensor.nbytes());
      if (!Frozen(layer, entry)) trainable += entry.tensor.numel();
    }
    info.set_parameter_count(count);
    info.set_parameter_bytes(bytes);
    info.set_trainable_count(trainable);
    trained_ = trained_ || trainable > 0;
    const v1::Layer& described = spec_.model().sequential(layer.index);
    if (request_.has_loss() && (described.has_batch_norm_1d() || described.has_batch_norm_2d())) {
      const at::Tensor& x = values_.at(layer.inputs.front());  // [N, C, ...]
      info.add_values_per_channel()->set_per_sample(x.numel() / (x.size(0) * x.size(1)));
    }
    for (const std::string& name : layer.inputs) info.add_reads(name);
    for (const std::string& name : layer.outputs) DescribeValue(name, *info.add_makes());
    if (&layer != &layers_.back()) return;
    *info.add_outputs() = info.makes(0);
    info.mutable_outputs(0)->set_name("output");
  }

  void DescribeValue(const std::string& name, v1::ModelValue& description) {
    const at::Tensor& value = values_[name];
    description.set_name(name);
    *description.mutable_shape() = BatchShape(value.sizes().slice(1).vec());
    description.set_dtype(ToDataType(value.scalar_type()));
    description.set_requires_grad(trained_ && value.is_floating_point());
    *description.mutable_dimension_order() = ToField(OrderOf(value.sizes(), value.strides()));
  }

  static void Describe(const std::string& name, const at::Tensor& tensor, v1::ModelTensor& description) {
    description.set_name(name);
    for (const int64_t size : tensor.sizes()) description.add_shape(size);
    description.set_dtype(ToDataType(tensor.scalar_type()));
  }

  absl::Status CheckLoss() const {
    if (!request_.has_loss() || request_.target_dtype() == v1::DATA_TYPE_UNSPECIFIED) return absl::OkStatus();
    GPIPE_ASSIGN_OR_RETURN(const at::Tensor target,
                           MetaTensor("the target", {request_.target_shape().begin(), request_.target_shape().end()},
                                      request_.target_dtype(), kBatch));
    const at::Tensor& output = values_.at(layers_.empty() ? "input" : layers_.back().outputs.front());
    const absl::Status fits = CatchTorch([&] {
      CheckLossFits(request_.loss(), output, target);
      return absl::OkStatus();
    });
    return fits.ok() ? fits : FieldError("train.loss", std::string(fits.message()));
  }

  // A value's meta tensor with as many samples as a micro-batch.
  at::Tensor MicroBatchOf(const std::string& name) const {
    const at::Tensor& value = values_.at(name);
    std::vector<int64_t> shape = value.sizes().vec();
    shape[0] = request_.profile_micro_batch();
    return EmptyInOrder(shape, OrderOf(value.sizes(), value.strides()), value.options());
  }

  absl::Status Profile() {
    LayerProfiler profiler(device_, request_.has_loss(), static_cast<int>(layers_.size()) + 1);
    std::vector<std::vector<std::string>> reads;
    for (const ModelLayer& layer : layers_) reads.push_back(layer.inputs);
    const std::vector<std::set<std::string>> read_later = ReadLater(reads);
    bool trained_before = request_.inputs(0).requires_grad();
    for (const ModelLayer& layer : layers_) {
      GPIPE_RETURN_IF_ERROR(ProfileLayer(layer.index, trained_before, read_later[layer.index], profiler));
      trained_before = trained_before || result_.layers(layer.index).trainable_count() > 0;
    }
    const bool has_loss = request_.has_loss() && !request_.loss().has_client() && !layers_.empty();
    return has_loss ? ProfileLoss(profiler) : absl::OkStatus();
  }

  absl::Status ProfileLoss(LayerProfiler& profiler) {
    const absl::StatusOr<LayerCost> cost =
        CatchTorch([&] { return MeasureLoss(request_, MicroBatchOf(layers_.back().outputs.front()), profiler); });
    if (!cost.ok())
      return absl::Status(cost.status().code(), absl::StrCat("measuring train.loss: ", cost.status().message()));
    const ModelLayer& last = layers_.back();
    AddCost(*cost, request_.profile_micro_batch(), LossValues(last.outputs.front()),
            *result_.mutable_layers(last.index));
    return absl::OkStatus();
  }

  absl::Status ProfileLayer(int index, bool input_needs_gradient, const std::set<std::string>& read_later,
                            LayerProfiler& profiler) {
    std::string description = spec_.model().sequential(index).SerializeAsString();
    for (const LayerTensor& entry : layers_[index].layer->tensors()) {
      description += Frozen(layers_[index], entry) ? 'f' : 't';
    }
    auto inputs = CatchTorch([&]() -> absl::StatusOr<std::vector<ReadValue>> {
      std::vector<ReadValue> values;
      for (const std::string& name : layers_[index].inputs) {
        values.push_back({MicroBatchOf(name), input_needs_gradient, read_later.contains(name)});
      }
      return values;
    });
    GPIPE_RETURN_IF_ERROR(inputs.status());
    const auto cost = profiler.Measure(description, *inputs, {}, [&] { return BuildOnDevice(index); });
    if (!cost.ok()) return Located(index, cost.status());
    AddCost(*cost, request_.profile_micro_batch(), {layers_[index].inputs, layers_[index].outputs},
            *result_.mutable_layers(index));
    return absl::OkStatus();
  }

  // One layer at a time is on the device: the model need not fit.
  absl::StatusOr<ModelLayer> BuildOnDevice(int index) const {
    GPIPE_ASSIGN_OR_RETURN(std::vector<ModelLayer> layers,
                           BuildSequential(spec_, {index, 1, false, device_, precision_}));
    for (const LayerTensor& entry : layers.front().layer->tensors()) {
      if (entry.parameter) entry.tensor.set_requires_grad(!Frozen(layers.front(), entry));
    }
    return std::move(layers.front());
  }

  absl::Status Located(int index, const absl::Status& status) const {
    const std::string path = spec::LayerPath(spec_, index);
    if (!FieldViolations(status).empty()) return status;
    if (absl::IsInvalidArgument(status)) return FieldError(path, std::string(status.message()));
    return absl::Status(status.code(), absl::StrCat("measuring ", path, ": ", status.message()));
  }

  const v1::Inspect& request_;
  const Precision precision_;
  const c10::Device device_;
  v1::Inspected& result_;
  v1::JobSpec spec_;
  std::vector<ModelLayer> layers_;
  Values values_;         // Meta tensors.
  bool trained_ = false;  // Whether any layer so far has a parameter that is trained.
};

}  // namespace

v1::Inspected InspectModel(const v1::Inspect& request, c10::Device device) {
  v1::Inspected result;
  result.set_id(request.id());
  const absl::Status status = CatchTorch([&] { return Inspection(request, device, result).Run(); });
  if (!status.ok()) result.clear_layers();
  *result.mutable_status() = ToProto(status);
  return result;
}

}  // namespace gpipe::worker
