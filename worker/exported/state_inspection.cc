#include "worker/exported/state_inspection.h"

#include <ATen/ATen.h>

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/model/frozen.h"

namespace gpipe::worker {
namespace {

constexpr char kPrecision[] = "train.precision";

std::string NothingToTrain(const v1::Inspect& request) {
  return absl::StrCat("there is nothing to train: each of its parameters was exported with requires_grad=False",
                      request.freeze().empty() ? "" : ", or is frozen by train.freeze",
                      "; export it with requires_grad_(True) for those to train (an adapter of PEFT is loaded with ",
                      "is_trainable=True)");
}

}  // namespace

absl::Status StateInspection::Check(std::string_view field) const {
  FieldErrors errors;
  bool trains = false;
  for (const std::string& name : archive_.StateNames()) {
    GPIPE_ASSIGN_OR_RETURN(const at::Tensor meta, archive_.Describe(name));
    const std::string what = absl::StrCat("'", name, "' is ", c10::toString(meta.scalar_type()));
    trains = trains || IsTrained(name);
    if (!safetensors::IsInFiles(ToDataType(meta.scalar_type()))) {
      errors.Add(field, absl::StrCat(what, ", which the safetensors file of a trained model cannot hold; make it a ",
                                     "tensor of another type, or a buffer with persistent=False"));
    } else if (IsTrained(name) && c10::isFloat8Type(meta.scalar_type())) {
      errors.Add(field, absl::StrCat(what, ", which PyTorch's optimizers cannot update; freeze it (train.freeze)"));
    }
  }
  if (!trains) errors.Add(field, NothingToTrain(request_));
  GPIPE_RETURN_IF_ERROR(errors.ToStatus());
  return CheckPrecision();
}

absl::StatusOr<bool> StateInspection::HasMaster(const std::string& name) const {
  GPIPE_ASSIGN_OR_RETURN(const at::Tensor meta, archive_.Describe(name));
  return IsTrained(name) && precision_.has_master(meta.scalar_type());
}

absl::Status StateInspection::CheckPrecision() const {
  if (!precision_.mixed()) return absl::OkStatus();
  for (const std::string& name : archive_.StateNames()) {
    GPIPE_ASSIGN_OR_RETURN(const bool has_master, HasMaster(name));
    if (has_master) return absl::OkStatus();
  }
  const bool bf16 = precision_.compute == c10::ScalarType::BFloat16;
  return FieldError(
      kPrecision, absl::StrCat("an exported model computes in the types it was exported in, and none of the parameters "
                               "that are trained is ",
                               c10::toString(precision_.compute), ": export it after model.to(torch.",
                               bf16 ? "bfloat16" : "float16", "), or leave out precision"));
}

absl::Status StateInspection::CheckWritten(const std::set<std::string>& written) const {
  for (const exported::Input& input : archive_.program().inputs) {
    if (input.kind != exported::InputKind::kParameter || !written.contains(input.value)) continue;
    const std::string& name = archive_.CanonicalName(input.name);
    GPIPE_ASSIGN_OR_RETURN(const bool has_master, HasMaster(name));
    if (!has_master) continue;
    return FieldError(kPrecision, absl::StrCat("the model writes to '", name, "' itself, which mixed precision would ",
                                               "undo; leave out precision, or freeze it (train.freeze)"));
  }
  return absl::OkStatus();
}

bool StateInspection::IsTrained(const std::string& name) const {
  return archive_.IsTrainable(name) && !IsFrozen(request_.freeze(), name);
}

void StateInspection::Describe(const std::vector<const exported::Input*>& inputs, v1::LayerInfo& layer) const {
  std::set<std::string> described;
  for (const exported::Input* input : inputs) {
    const std::string& name = archive_.CanonicalName(input->name);
    if (IsInState(*input) && described.insert(name).second) Add(name, layer);
  }
}

void StateInspection::DescribeUnused(google::protobuf::RepeatedPtrField<v1::LayerInfo>& layers) const {
  std::map<std::string, int> layer_of;
  for (int i = 0; i < layers.size(); ++i) {
    for (const v1::ModelTensor& tensor : layers[i].tensors()) layer_of.emplace(tensor.name(), i);
  }
  int layer = 0;
  for (const std::string& name : archive_.StateNames()) {
    const auto [known, is_unused] = layer_of.emplace(name, layer);
    if (is_unused) Add(name, layers[layer]);
    layer = known->second;
  }
}

void StateInspection::Add(const std::string& name, v1::LayerInfo& layer) const {
  const absl::StatusOr<at::Tensor> described = archive_.Describe(name);
  if (!described.ok()) return;  // Check has refused it, where it matters.
  const at::Tensor& meta = *described;
  v1::ModelTensor& tensor = *layer.add_tensors();
  tensor.set_name(name);
  tensor.mutable_shape()->Assign(meta.sizes().begin(), meta.sizes().end());
  tensor.set_dtype(ToDataType(meta.scalar_type()));
  for (const std::string& alias : archive_.AliasesOf(name)) tensor.add_aliases(alias);
  tensor.set_elsewhere(!archive_.HasValues(name));
  if (!archive_.IsParameter(name)) return;
  tensor.set_trainable(IsTrained(name));
  layer.set_parameter_count(layer.parameter_count() + meta.numel());
  layer.set_parameter_bytes(layer.parameter_bytes() + static_cast<int64_t>(meta.nbytes()));
  if (tensor.trainable()) layer.set_trainable_count(layer.trainable_count() + meta.numel());
}

}  // namespace gpipe::worker
