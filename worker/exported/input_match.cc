#include "worker/exported/input_match.h"

#include <algorithm>
#include <cstdint>
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

using exported::Size;
using exported::UserInput;

constexpr char kModel[] = "model.exported.path";

std::string InputNames(const exported::Program& program) {
  return absl::StrJoin(program.user_inputs, ", ",
                       [](std::string* out, const UserInput& input) { absl::StrAppend(out, input.name); });
}

// `Long [any, 8]`.
std::string TextOf(const UserInput& input) {
  const auto type = ToScalarType(input.meta.dtype);
  const auto append = [](std::string* out, const Size& size) {
    const auto* number = std::get_if<int64_t>(&size);
    absl::StrAppend(out, number != nullptr ? absl::StrCat(*number) : "any");
  };
  return absl::StrCat(type ? c10::toString(*type) : "?", " [", absl::StrJoin(input.meta.sizes, ", ", append), "]");
}

std::string TextOf(const v1::ModelValue& data) {
  const auto append = [](std::string* out, const v1::Dimension& size) {
    absl::StrAppend(out, size.per_sample() == 0 ? absl::StrCat(size.fixed()) : "any");
  };
  return absl::StrCat(c10::toString(ToScalarType(data.dtype())), " [", absl::StrJoin(data.shape(), ", ", append), "]");
}

absl::Status CheckSamples(const UserInput& input, const v1::ModelValue& data, const std::string& dataset) {
  const std::string unbatched =
      absl::StrCat("where an input has no samples, name '", data.name(), "' in ", dataset, ".unbatched");
  if (input.meta.sizes.empty()) {
    return FieldError(kModel,
                      absl::StrCat("input '", input.name, "' is a single number, and has no samples; ", unbatched));
  }
  const auto* batch = std::get_if<int64_t>(&input.meta.sizes.front());
  if (batch == nullptr) return absl::OkStatus();
  return FieldError(kModel, absl::StrCat("the batch size is baked in: dimension 0 of input '", input.name,
                                         "' is always ", *batch, "; export with a dynamic one, or, ", unbatched));
}

absl::Status CheckFits(const UserInput& input, const v1::ModelValue& data, const std::string& field) {
  const auto type = ToScalarType(input.meta.dtype);
  const bool alike =
      type && ToDataType(*type) == data.dtype() && static_cast<int>(input.meta.sizes.size()) == data.shape_size();
  bool fits = alike;
  for (int i = 0; fits && i < data.shape_size(); ++i) {
    const auto* size = std::get_if<int64_t>(&input.meta.sizes[static_cast<size_t>(i)]);
    fits = size == nullptr || data.shape(i).per_sample() != 0 || *size == data.shape(i).fixed();
  }
  if (fits) return absl::OkStatus();
  return FieldError(
      field,
      absl::StrCat("the model's input '", input.name, "' is ", TextOf(input), ", the data's '", data.name(), "' is ",
                   TextOf(data), alike ? "; sizes that `dynamic_shapes` of gpipe.export leaves free may be any" : ""));
}

absl::Status MatchInput(const UserInput& input, const v1::ModelValue& data, const ProgramData& all,
                        const std::string& field) {
  if (BeginsWithBatch(data.shape())) GPIPE_RETURN_IF_ERROR(CheckSamples(input, data, all.dataset));
  return CheckFits(input, data, field);
}

// That no size of an input without samples is the batch.
absl::Status CheckWhole(const exported::Program& program, const std::vector<v1::ModelValue>& matched,
                        const ProgramData& data) {
  std::vector<Size> batches;
  for (size_t i = 0; i < matched.size(); ++i) {
    if (BeginsWithBatch(matched[i].shape())) batches.push_back(program.user_inputs[i].meta.sizes.front());
  }
  for (size_t i = 0; i < matched.size(); ++i) {
    const UserInput& input = program.user_inputs[i];
    const auto is_batch = [&](const Size& size) { return std::ranges::find(batches, size) != batches.end(); };
    if (BeginsWithBatch(matched[i].shape()) || std::ranges::none_of(input.meta.sizes, is_batch)) continue;
    return FieldError(
        data.dataset + ".unbatched",
        absl::StrCat("the model's input '", input.name, "' has the batch in its shape, the data's '", matched[i].name(),
                     "' has none; export the model with gpipe.export(..., unbatched=[\"", input.name, "\"])"));
  }
  return absl::OkStatus();
}

// Of data that is matched by name: what is named as unbatched is one of the model's inputs.
absl::Status CheckUnbatched(const exported::Program& program, const ProgramData& data) {
  for (const v1::ModelValue& value : data.inputs) {
    const auto is_it = [&](const UserInput& input) { return input.name == value.name(); };
    if (BeginsWithBatch(value.shape()) || std::ranges::any_of(program.user_inputs, is_it)) continue;
    return FieldError(data.dataset + ".unbatched",
                      absl::StrCat("'", value.name(), "' is none of the model's inputs, ", InputNames(program)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<v1::ModelValue>> MatchInputs(const exported::Program& program, const ProgramData& data) {
  const std::vector<UserInput>& inputs = program.user_inputs;
  if (data.in_order && data.inputs.size() != inputs.size()) {
    return FieldError(data.field(), absl::StrCat("names ", data.inputs.size(), " tensors, but the model's inputs are ",
                                                 InputNames(program)));
  }
  const bool is_only = inputs.size() == 1 && data.inputs.size() == 1;  // Made-up data has no names.
  if (!data.in_order && !is_only) GPIPE_RETURN_IF_ERROR(CheckUnbatched(program, data));
  std::vector<v1::ModelValue> matched;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto is_it = [&](const v1::ModelValue& value) { return value.name() == inputs[i].name; };
    const auto found = data.in_order || is_only ? data.inputs.begin() + static_cast<std::ptrdiff_t>(i)
                                                : std::ranges::find_if(data.inputs, is_it);
    if (found == data.inputs.end()) {
      return FieldError(data.field(), absl::StrCat("has no tensor for the model's input '", inputs[i].name, "'"));
    }
    GPIPE_RETURN_IF_ERROR(
        MatchInput(inputs[i], *found, data, data.in_order ? absl::StrCat(data.field(), "[", i, "]") : data.field()));
    matched.push_back(*found);
  }
  GPIPE_RETURN_IF_ERROR(CheckWhole(program, matched, data));
  return matched;
}

}  // namespace gpipe::worker
