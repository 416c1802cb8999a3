// CheckWeights, CheckResume and CheckFrozen: names of tensors against the model's.

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

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

using Tensors = std::map<std::string, safetensors::TensorInfo>;

template <typename Shape>
std::string Describe(v1::DataType dtype, const Shape& shape) {
  return absl::StrCat(AbslView(safetensors::DtypeName(dtype)), " [", absl::StrJoin(shape, ", "), "]");
}

std::vector<std::string> NamesOf(const v1::ModelTensor& tensor) {
  std::vector<std::string> names = {tensor.name()};
  names.insert(names.end(), tensor.aliases().begin(), tensor.aliases().end());
  return names;
}

// Under whichever of its names it is given.
void CheckTensor(const v1::ModelTensor& tensor, const Tensors& given, const char* field, FieldErrors& errors) {
  const std::string expected = Describe(tensor.dtype(), tensor.shape());
  const std::vector<std::string> names = NamesOf(tensor);
  bool found = false;
  for (const std::string& name : names) {
    const auto entry = given.find(name);
    if (entry == given.end()) continue;
    found = true;
    const std::string actual = Describe(entry->second.dtype, entry->second.shape);
    if (actual == expected) continue;
    errors.Add(field, absl::StrCat("'", name, "' is ", actual, ", the model's is ", expected));
  }
  if (!found) errors.Add(field, absl::StrCat("there is no tensor '", absl::StrJoin(names, "' or '"), "' in it"));
}

// All of the model's tensors, and no others.
absl::Status CheckTensors(const std::vector<v1::LayerInfo>& layers, const Tensors& given, const char* field) {
  FieldErrors errors;
  std::set<std::string> names;
  for (const v1::LayerInfo& layer : layers) {
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      if (!names.insert(tensor.name()).second) continue;  // Several layers may share it.
      names.insert(tensor.aliases().begin(), tensor.aliases().end());
      CheckTensor(tensor, given, field, errors);
    }
  }
  for (const auto& [name, info] : given) {
    if (!names.contains(name)) errors.Add(field, absl::StrCat("the model has no '", name, "', which is in it"));
  }
  return errors.ToStatus();
}

}  // namespace

absl::Status CheckWeights(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store,
                          const std::vector<v1::LayerInfo>& layers, const SharedTables& shared) {
  if (spec.model().weights().empty()) return absl::OkStatus();
  GPIPE_ASSIGN_OR_RETURN(const Tensors given, OpenWeights(spec, {files, store, shared}));
  return CheckTensors(layers, given, "model.weights");
}

absl::Status CheckResume(const CheckpointFiles& checkpoint, const ArtifactStore& store,
                         const std::vector<v1::LayerInfo>& layers) {
  GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path file, store.Path(checkpoint.model));
  GPIPE_ASSIGN_OR_RETURN(const safetensors::Header header, safetensors::ReadHeader(file));
  return CheckTensors(layers, header.tensors, "resume");
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
