#include "worker/exported/value_table.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/exported/argument_source.h"
#include "worker/exported/exported_strides.h"
#include "worker/exported/gradient_flow.h"

namespace gpipe::worker {
absl::StatusOr<ValueTable> ValueTable::Create(const Archive& archive, const Units& units,
                                              const std::vector<v1::ModelValue>& inputs,
                                              const std::vector<std::string>& frozen, std::string_view field) {
  ValueTable table(archive, units);
  for (size_t i = 0; i < inputs.size(); ++i) {
    GPIPE_RETURN_IF_ERROR(table.Bind(archive.program().user_inputs[i], inputs[i], field));
  }
  std::set<std::string> tracked;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].requires_grad()) tracked.insert(archive.program().user_inputs[i].value);
  }
  table.gradients_ = FindGradients(archive, units.index(), units.aliasing(), {frozen, tracked});
  return table;
}

absl::Status ValueTable::Bind(const exported::UserInput& input, const v1::ModelValue& data, std::string_view field) {
  for (size_t run = 0; run < kBatches.size(); ++run) {
    const std::vector<int64_t> sizes = SizesFor(data.shape(), kBatches[run]);
    for (size_t i = 0; i < std::min(sizes.size(), input.meta.sizes.size()); ++i) {
      const auto* expression = std::get_if<std::string>(&input.meta.sizes[i]);
      const auto symbol = expression == nullptr ? std::nullopt : exported::SymbolOf(*expression);
      if (symbol) symbols_[run].emplace(*symbol, sizes[i]);
      const std::optional<int64_t> wanted = exported::Evaluate(input.meta.sizes[i], symbols_[run]);
      if (!wanted || *wanted == sizes[i]) continue;
      return FieldError(field, absl::StrCat("dimension ", i, " of the model's input '", input.name, "' is ", *wanted,
                                            " where another input has the size that the data has, and the data's '",
                                            data.name(), "' has ", sizes[i]));
    }
  }
  return absl::OkStatus();
}

std::optional<v1::Dimension> ValueTable::ProductOf(const std::vector<exported::Size>& factors) const {
  std::array<int64_t, kBatches.size()> sizes;
  for (size_t run = 0; run < kBatches.size(); ++run) {
    sizes[run] = 1;
    const auto known = exported::EvaluateSizes(factors, symbols_[run]);
    if (!known) return std::nullopt;
    for (const int64_t factor : *known) {
      if (factor < 0 || __builtin_mul_overflow(sizes[run], factor, &sizes[run])) return std::nullopt;
    }
  }
  const int64_t per_sample = (sizes[1] - sizes[0]) / (kBatches[1] - kBatches[0]);
  v1::Dimension dimension;
  dimension.set_per_sample(per_sample);
  dimension.set_fixed(sizes[0] - kBatches[0] * per_sample);
  for (size_t run = 0; run < kBatches.size(); ++run) {
    if (dimension.fixed() + kBatches[run] * per_sample != sizes[run]) return std::nullopt;
  }
  return dimension;
}

std::optional<Shape> ValueTable::ShapeOf(const std::string& value) const {
  const auto meta = program_.graph.values.find(value);
  if (meta == program_.graph.values.end() || !meta->second.strided) return std::nullopt;
  Shape shape;
  for (const exported::Size& size : meta->second.sizes) {
    std::optional<v1::Dimension> dimension = ProductOf({size});
    if (!dimension) return std::nullopt;
    *shape.Add() = *std::move(dimension);
  }
  return shape;
}

bool ValueTable::DependsOnData(const std::string& value) const {
  const auto meta = program_.graph.values.find(value);
  return meta != program_.graph.values.end() && std::ranges::any_of(meta->second.sizes, exported::DependsOnData);
}

std::string ValueTable::ProblemWithSize(const std::string& value) const {
  const auto meta = program_.graph.values.find(value);
  if (meta == program_.graph.values.end() || !meta->second.strided || ShapeOf(value)) return "";
  const size_t number = index_.NumberOf(value);
  const std::string source = number < index_.inputs() ? "" : program_.graph.nodes[index_.MakerOf(number)].source;
  return absl::StrCat(
      "the size of '", value, "'", source.empty() ? "" : absl::StrCat(" (", source, ")"),
      DependsOnData(value) ? " depends on what the data is" : " is no fixed one plus a multiple of the samples");
}

std::optional<c10::ScalarType> ValueTable::TypeOf(const std::string& value) const {
  const auto meta = program_.graph.values.find(value);
  if (meta == program_.graph.values.end()) return std::nullopt;
  const std::optional<c10::ScalarType> type = ToScalarType(meta->second.dtype);
  return type && ToDataType(*type) != v1::DATA_TYPE_UNSPECIFIED ? type : std::nullopt;
}

std::optional<std::vector<int64_t>> ValueTable::SizesOf(const std::string& value, int64_t samples) const {
  const std::optional<Shape> shape = ShapeOf(value);
  return shape ? std::optional(SizesFor(*shape, samples)) : std::nullopt;
}

DimensionOrder ValueTable::OrderOfValue(const std::string& value) const {
  const exported::TensorMeta& meta = program_.graph.values.at(value);
  std::optional<DimensionOrder> order;
  for (const exported::Symbols& symbols : symbols_) {
    const auto known = StridesOf(meta, symbols);
    if (!known) return {};
    const DimensionOrder found = OrderOf(known->sizes, known->strides);
    if (order.value_or(found) != found) return {};
    order = found;
  }
  return *order;
}

v1::ModelValue ValueTable::Describe(const std::string& value) const {
  v1::ModelValue description;
  description.set_name(value);
  *description.mutable_shape() = *ShapeOf(value);
  description.set_dtype(ToDataType(*TypeOf(value)));
  description.set_requires_grad(gradients_[index_.NumberOf(value)]);
  *description.mutable_dimension_order() = ToField(OrderOfValue(value));
  return description;
}

at::Tensor ValueTable::Meta(const std::string& value, int64_t samples) const {
  const auto options = at::device(c10::kMeta).dtype(*TypeOf(value));
  return EmptyInOrder(SizesFor(*ShapeOf(value), samples), OrderOfValue(value), options)
      .set_requires_grad(gradients_[index_.NumberOf(value)]);
}

}  // namespace gpipe::worker
