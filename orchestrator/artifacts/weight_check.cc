// CheckWeights, CheckHasValues, CheckResume and CheckFrozen: names of tensors against the model's.

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field_error.h"
#include "common/safetensors/weight_names.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "orchestrator/artifacts/data_files.h"
#include "orchestrator/artifacts/input_check.h"

namespace gpipe::orchestrator {
namespace {

constexpr char kWeights[] = "model.weights";

using Tensors = std::map<std::string, safetensors::TensorInfo>;

// What of the given tensors may differ from the model's.
struct Leniency {
  bool converted = false;  // Floating types.
  bool more = false;       // Tensors that the model does not have.
  std::string prefix;      // Of the model's names, where the files' do not have it.
};

template <typename Shape>
std::string Describe(absl::string_view dtype, const Shape& shape) {
  return absl::StrCat(dtype, " [", absl::StrJoin(shape, ", "), "]");
}

std::vector<std::string> NamesOf(const v1::ModelTensor& tensor) {
  std::vector<std::string> names = {tensor.name()};
  names.insert(names.end(), tensor.aliases().begin(), tensor.aliases().end());
  return names;
}

bool Fits(const safetensors::TensorInfo& given, const v1::ModelTensor& tensor, const Leniency& leniency) {
  if (!std::equal(given.shape.begin(), given.shape.end(), tensor.shape().begin(), tensor.shape().end())) return false;
  return leniency.converted ? safetensors::IsConvertible(given.dtype, tensor.dtype()) : given.dtype == tensor.dtype();
}

// Compares what is given with a model.
class Comparison {
 public:
  Comparison(const Tensors& given, const char* field, Leniency leniency)
      : given_(given), field_(field), leniency_(std::move(leniency)), names_(NamesOfAll(given)) {}

  // Names that the model does not have. INVALID_ARGUMENT lists what is wrong.
  absl::StatusOr<std::vector<std::string>> Run(const std::vector<v1::LayerInfo>& layers) {
    std::set<std::string> seen;
    for (const v1::LayerInfo& layer : layers) {
      for (const v1::ModelTensor& tensor : layer.tensors()) {
        if (seen.insert(tensor.name()).second) CheckTensor(tensor);  // Several layers may share it.
      }
    }
    std::vector<std::string> more;
    for (const auto& [name, info] : given_) {
      if (used_.contains(name)) continue;
      more.push_back(name);
      if (!leniency_.more) errors_.Add(field_, absl::StrCat("the model has no '", name, "', which is in it"));
    }
    if (!errors_.empty()) return errors_.ToStatus();
    return more;
  }

 private:
  static std::vector<std::string> NamesOfAll(const Tensors& given) {
    std::vector<std::string> names;
    for (const auto& [name, info] : given) names.push_back(name);
    return names;
  }

  // Under whichever of its names it is given.
  void CheckTensor(const v1::ModelTensor& tensor) {
    const std::vector<std::string> names = safetensors::WithoutPrefix(leniency_.prefix, NamesOf(tensor));
    for (const std::string& name : names) {
      for (const std::string& meant : names_.Meaning(name)) CheckOne(meant, tensor);
    }
    if (const auto found = names_.Find(names); !found.ok()) errors_.Add(field_, StdView(found.status().message()));
  }

  void CheckOne(const std::string& name, const v1::ModelTensor& tensor) {
    used_.insert(name);
    const safetensors::TensorInfo& given = given_.at(name);
    if (Fits(given, tensor, leniency_)) return;
    errors_.Add(field_, absl::StrCat("'", name, "' is ", Describe(given.dtype_name, given.shape), ", the model's is ",
                                     Describe(AbslView(safetensors::DtypeName(tensor.dtype())), tensor.shape())));
  }

  const Tensors& given_;
  const char* const field_;
  const Leniency leniency_;
  const safetensors::WeightNames names_;
  std::set<std::string> used_;
  FieldErrors errors_;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> CheckWeights(const v1::JobSpec& spec, const FileMap& files,
                                                      const ArtifactStore& store,
                                                      const std::vector<v1::LayerInfo>& layers,
                                                      const SharedTables& shared) {
  if (spec.model().weights().empty()) return std::vector<std::string>();
  GPIPE_ASSIGN_OR_RETURN(const Tensors given, OpenWeights(spec, {files, store, shared}));
  return Comparison(given, kWeights,
                    {.converted = true, .more = !spec.model().strict(), .prefix = spec.model().weights_prefix()})
      .Run(layers);
}

absl::Status CheckHasValues(const v1::JobSpec& spec, const std::vector<v1::LayerInfo>& layers) {
  if (!spec.model().weights().empty()) return absl::OkStatus();
  std::set<std::string> missing;
  for (const v1::LayerInfo& layer : layers) {
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      if (tensor.elsewhere()) missing.insert(tensor.name());
    }
  }
  if (missing.empty()) return absl::OkStatus();
  return FieldError(kWeights,
                    absl::StrCat("is required: ", spec.model().exported().path(),
                                 " was exported without weights; it has no values of '", *missing.begin(),
                                 missing.size() > 1 ? absl::StrCat("' and ", missing.size() - 1, " more") : "'"));
}

absl::Status CheckResume(const CheckpointFiles& checkpoint, const ArtifactStore& store,
                         const std::vector<v1::LayerInfo>& layers) {
  constexpr char kResume[] = "resume";
  Tensors tensors;
  for (const v1::ArtifactRef& ref : TensorFilesOf(checkpoint.files, kModelStem)) {
    GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path file, store.Path(ref));
    GPIPE_ASSIGN_OR_RETURN(const safetensors::Header header, safetensors::ReadHeader(file));
    for (const auto& [name, info] : header.tensors) {
      if (!tensors.emplace(name, info).second) {
        return FieldError(kResume, absl::StrCat("'", name, "' is in two of the checkpoint's files"));
      }
    }
  }
  return Comparison(tensors, kResume, {}).Run(layers).status();
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
