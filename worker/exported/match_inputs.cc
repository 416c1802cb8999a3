#include "worker/exported/match_inputs.h"

#include <algorithm>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field_error.h"
#include "common/plan/shape.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/exported/argument_source.h"

namespace gpipe::worker {
namespace {

std::string ShapeText(const std::vector<exported::Size>& sizes) {
  return absl::StrCat("[",
                      absl::StrJoin(sizes, ", ",
                                    [](std::string* out, const exported::Size& size) {
                                      const auto* number = std::get_if<int64_t>(&size);
                                      absl::StrAppend(out, number != nullptr ? absl::StrCat(*number) : "any");
                                    }),
                      "]");
}

std::string NamesOf(const std::vector<exported::UserInput>& inputs) {
  return absl::StrJoin(inputs, ", ",
                       [](std::string* out, const exported::UserInput& input) { absl::StrAppend(out, input.name); });
}

absl::Status CheckFits(const exported::UserInput& input, const v1::ModelValue& data, const std::string& field) {
  const auto type = ToScalarType(input.meta.dtype);
  const std::vector<int64_t> sample = SampleShape(data.shape());
  bool fits = type && ToDataType(*type) == data.dtype() && input.meta.sizes.size() == sample.size() + 1;
  for (size_t i = 0; fits && i < sample.size(); ++i) {
    const auto* size = std::get_if<int64_t>(&input.meta.sizes[i + 1]);
    fits = size == nullptr || *size == sample[i];
  }
  if (fits) return absl::OkStatus();
  return FieldError(field, absl::StrCat("the model's input '", input.name, "' is ", type ? c10::toString(*type) : "?",
                                        " ", ShapeText(input.meta.sizes), ", the data's '", data.name(), "' is ",
                                        c10::toString(ToScalarType(data.dtype())), " [any", sample.empty() ? "" : ", ",
                                        absl::StrJoin(sample, ", "), "]"));
}

}  // namespace

const char* DataField(const v1::Inspect& request) {
  return request.has_loss() ? "train.dataset.inputs" : "infer.inputs";
}

absl::StatusOr<std::vector<v1::ModelValue>> MatchInputs(const v1::Inspect& request, const exported::Program& program) {
  const auto& given = request.inputs();
  const bool training = request.has_loss();
  if (training && given.size() != static_cast<int>(program.user_inputs.size())) {
    return FieldError(DataField(request), absl::StrCat("names ", given.size(), " tensors, but the model's inputs are ",
                                                       NamesOf(program.user_inputs)));
  }
  const bool only_one = program.user_inputs.size() == 1 && given.size() == 1;  // Made-up data has no names.
  std::vector<v1::ModelValue> matched;
  for (size_t i = 0; i < program.user_inputs.size(); ++i) {
    const exported::UserInput& input = program.user_inputs[i];
    const auto has_its_name = [&](const v1::ModelValue& value) { return value.name() == input.name; };
    const auto found = training || only_one ? given.begin() + static_cast<int>(i)
                                            : std::find_if(given.begin(), given.end(), has_its_name);
    if (found == given.end()) {
      return FieldError(DataField(request), absl::StrCat("has no tensor for the model's input '", input.name, "'"));
    }
    const std::string field = training ? absl::StrCat(DataField(request), "[", i, "]") : DataField(request);
    GPIPE_RETURN_IF_ERROR(CheckFits(input, *found, field));
    matched.push_back(*found);
  }
  return matched;
}

}  // namespace gpipe::worker
