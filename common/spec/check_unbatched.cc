#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/spec/checks.h"
#include "common/spec/unbatched.h"

namespace gpipe::spec {
namespace {

using Names = google::protobuf::RepeatedPtrField<std::string>;

Names InputsOf(const v1::Dataset& dataset) {
  Names inputs = dataset.inputs();
  if (inputs.empty()) *inputs.Add() = "input";  // The default.
  return inputs;
}

void CheckHasTensors(const v1::JobSpec& spec, bool tensors, const std::string& path, FieldErrors& errors) {
  if (!spec.model().has_exported()) errors.Add(path, "is for exported models: the input of a layer list has samples");
  if (!tensors) errors.Add(path, "is for data in files of tensors");
}

}  // namespace

void CheckUnbatched(const v1::Dataset& dataset, const v1::JobSpec& spec, const std::string& path, FieldErrors& errors) {
  if (dataset.unbatched().empty()) return;
  const std::string field = path + ".unbatched";
  CheckHasTensors(spec, !dataset.path().empty(), field, errors);
  const Names inputs = InputsOf(dataset);
  for (int i = 0; i < dataset.unbatched_size(); ++i) {
    const std::string& name = dataset.unbatched(i);
    if (!IsUnbatched(inputs, name)) {
      errors.Add(ElementPath(field, i), absl::StrCat("'", name, "' is none of ", path, ".inputs"));
    }
    if (!name.empty() && name == spec.train().loss().model_output().targets()) {
      errors.Add(ElementPath(field, i), absl::StrCat("'", name, "' has samples: the loss is the mean of its elements"));
    }
  }
  const auto unbatched = [&](const std::string& name) { return IsUnbatched(dataset.unbatched(), name); };
  if (std::all_of(inputs.begin(), inputs.end(), unbatched)) errors.Add(field, "leaves no input that has samples");
}

void CheckSameUnbatched(const v1::Train& train, FieldErrors& errors) {
  const v1::Dataset& evaluation = train.evaluate().dataset();
  const Names here = InputsOf(evaluation), there = InputsOf(train.dataset());
  for (int i = 0; i < std::min(here.size(), there.size()); ++i) {
    const bool whole = IsUnbatched(evaluation.unbatched(), here[i]);
    if (whole == IsUnbatched(train.dataset().unbatched(), there[i])) continue;
    errors.Add("train.evaluate.dataset.unbatched",
               absl::StrCat("must name the same inputs as train.dataset.unbatched, '", here[i],
                            whole ? "' has samples there" : "' has none there"));
  }
}

void CheckUnbatched(const v1::Infer& infer, const v1::JobSpec& spec, FieldErrors& errors) {
  if (!infer.unbatched().empty()) CheckHasTensors(spec, !infer.inputs().empty(), "infer.unbatched", errors);
}

}  // namespace gpipe::spec
