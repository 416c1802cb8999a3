// CheckWeights and CheckFrozen: names of tensors against the model's.

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field_error.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "orchestrator/artifacts/data_files.h"
#include "orchestrator/artifacts/input_check.h"

namespace gpipe::orchestrator {
namespace {

constexpr char kField[] = "model.weights";

template <typename Shape>
std::string Describe(v1::DataType dtype, const Shape& shape) {
  return absl::StrCat(AbslView(safetensors::DtypeName(dtype)), " [", absl::StrJoin(shape, ", "), "]");
}

void CheckTensor(const v1::ModelTensor& tensor, const safetensors::Header& header, FieldErrors& errors) {
  const auto found = header.tensors.find(tensor.name());
  if (found == header.tensors.end()) {
    return errors.Add(kField, absl::StrCat("the file has no tensor '", tensor.name(), "'"));
  }
  const std::string expected = Describe(tensor.dtype(), tensor.shape());
  const std::string actual = Describe(found->second.dtype, found->second.shape);
  if (actual == expected) return;
  errors.Add(kField, absl::StrCat("'", tensor.name(), "' is ", actual, ", the model's is ", expected));
}

}  // namespace

absl::Status CheckWeights(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store,
                          const std::vector<v1::LayerInfo>& layers) {
  if (spec.model().weights().empty()) return absl::OkStatus();
  GPIPE_ASSIGN_OR_RETURN(const DataFile file, OpenDataFile(kField, spec.model().weights(), files, store));
  FieldErrors errors;
  std::set<std::string> names;
  for (const v1::LayerInfo& layer : layers) {
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      names.insert(tensor.name());
      names.insert(tensor.aliases().begin(), tensor.aliases().end());
      CheckTensor(tensor, file.header, errors);
    }
  }
  for (const auto& [name, info] : file.header.tensors) {
    if (!names.contains(name)) errors.Add(kField, absl::StrCat("the model has no '", name, "', which is in the file"));
  }
  return errors.ToStatus();
}

absl::Status CheckFrozen(const v1::JobSpec& spec, const std::vector<v1::LayerInfo>& layers) {
  FieldErrors errors;
  for (int i = 0; i < spec.train().freeze_size(); ++i) {
    const std::string& prefix = spec.train().freeze(i);
    const auto begins = [&](const v1::ModelTensor& tensor) { return absl::StartsWith(tensor.name(), prefix); };
    const bool known = std::any_of(layers.begin(), layers.end(), [&](const v1::LayerInfo& layer) {
      return std::any_of(layer.tensors().begin(), layer.tensors().end(), begins);
    });
    if (!known)
      errors.Add(absl::StrCat("train.freeze[", i, "]"), absl::StrCat("'", prefix, "' begins no tensor's name"));
  }
  return errors.ToStatus();
}

}  // namespace gpipe::orchestrator
