#include "worker/exported/argument_source.h"

#include <ATen/ATen.h>
#include <ATen/ScalarOps.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

using exported::Argument;
using exported::ArgumentList;

// torch/_export/serde/schema.py, ScalarType.
constexpr std::pair<int64_t, c10::ScalarType> kDtypes[] = {
    {1, c10::kByte},
    {2, c10::kChar},
    {3, c10::kShort},
    {4, c10::kInt},
    {5, c10::kLong},
    {6, c10::kHalf},
    {7, c10::kFloat},
    {8, c10::kDouble},
    {9, c10::kComplexHalf},
    {10, c10::kComplexFloat},
    {11, c10::kComplexDouble},
    {12, c10::kBool},
    {13, c10::kBFloat16},
    {28, c10::kUInt16},
    {29, c10::kFloat8_e4m3fn},
    {30, c10::kFloat8_e5m2},
    {31, c10::kFloat8_e4m3fnuz},
    {32, c10::kFloat8_e5m2fnuz},
};

// The same, MemoryFormat.
constexpr std::pair<int64_t, c10::MemoryFormat> kMemoryFormats[] = {
    {1, c10::MemoryFormat::Contiguous},
    {2, c10::MemoryFormat::ChannelsLast},
    {3, c10::MemoryFormat::ChannelsLast3d},
    {4, c10::MemoryFormat::Preserve},
};

constexpr int64_t kStrided = 7;

// Without Optional around it.
c10::TypePtr Inner(c10::TypePtr type) {
  while (const auto optional = type->cast<c10::OptionalType>()) type = optional->getElementType();
  return type;
}

bool IsTensor(const c10::TypePtr& type) { return Inner(type)->kind() == c10::TypeKind::TensorType; }

// What Python's dispatcher does with a number where the schema says Tensor: one that does not promote types.
at::Tensor WrappedNumber(const at::Scalar& number) {
  at::Tensor tensor = c10::scalar_to_tensor(number);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

c10::IValue Coerce(c10::IValue value, const c10::TypePtr& type) {
  const bool number = value.isInt() || value.isDouble() || value.isBool() || value.isComplexDouble();
  if (!number) return value;
  if (IsTensor(type)) return WrappedNumber(value.toScalar());
  if (Inner(type)->kind() == c10::TypeKind::FloatType && value.isInt()) return static_cast<double>(value.toInt());
  return value;
}

template <typename T, typename Convert>
c10::IValue ListOf(const std::vector<c10::IValue>& elements, Convert convert) {
  c10::List<T> list;
  list.reserve(elements.size());
  for (const c10::IValue& element : elements) list.push_back(convert(element));
  return list;
}

c10::IValue MakeList(const std::vector<c10::IValue>& elements, const c10::TypePtr& element_type) {
  if (element_type->kind() == c10::TypeKind::OptionalType && IsTensor(element_type)) {
    return ListOf<std::optional<at::Tensor>>(elements, [](const c10::IValue& v) { return v.toOptional<at::Tensor>(); });
  }
  switch (Inner(element_type)->kind()) {
    case c10::TypeKind::TensorType:
      return ListOf<at::Tensor>(elements, [](const c10::IValue& v) { return v.toTensor(); });
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return ListOf<int64_t>(elements, [](const c10::IValue& v) { return v.toInt(); });
    case c10::TypeKind::FloatType:
      return ListOf<double>(elements, [](const c10::IValue& v) { return v.toDouble(); });
    case c10::TypeKind::BoolType:
      return ListOf<bool>(elements, [](const c10::IValue& v) { return v.toBool(); });
    default: {
      c10::impl::GenericList list(element_type);
      for (const c10::IValue& element : elements) list.push_back(element);
      return list;
    }
  }
}

// Constants that are not lists.
struct ToConstant {
  absl::StatusOr<c10::IValue> operator()(std::monostate) const { return c10::IValue(); }
  absl::StatusOr<c10::IValue> operator()(bool value) const { return c10::IValue(value); }
  absl::StatusOr<c10::IValue> operator()(int64_t value) const { return c10::IValue(value); }
  absl::StatusOr<c10::IValue> operator()(double value) const { return c10::IValue(value); }
  absl::StatusOr<c10::IValue> operator()(std::complex<double> value) const {
    return c10::IValue(c10::complex<double>(value));
  }
  absl::StatusOr<c10::IValue> operator()(const std::string& value) const { return c10::IValue(value); }
  absl::StatusOr<c10::IValue> operator()(exported::DtypeCode value) const {
    const std::optional<c10::ScalarType> type = ToScalarType(value);
    if (!type) return absl::UnimplementedError(absl::StrCat("dtype ", value.code, " is not supported"));
    return c10::IValue(*type);
  }
  absl::StatusOr<c10::IValue> operator()(exported::LayoutCode value) const {
    if (value.code != kStrided) return absl::UnimplementedError("layouts other than strided are not supported");
    return c10::IValue(c10::kStrided);
  }
  absl::StatusOr<c10::IValue> operator()(exported::MemoryFormatCode value) const {
    for (const auto& [code, format] : kMemoryFormats) {
      if (code == value.code) return c10::IValue(format);
    }
    return absl::UnimplementedError(absl::StrCat("memory format ", value.code, " is not supported"));
  }
  absl::StatusOr<c10::IValue> operator()(exported::DeviceName) const { return c10::IValue(device); }
  absl::StatusOr<c10::IValue> operator()(const auto&) const {
    return absl::UnimplementedError("an argument of this kind is not supported here");
  }

  c10::Device device;
};

}  // namespace

std::optional<c10::ScalarType> ToScalarType(exported::DtypeCode code) {
  for (const auto& [number, type] : kDtypes) {
    if (number == code.code) return type;
  }
  return std::nullopt;
}

ArgumentSource ArgumentSource::Constant(c10::IValue value) {
  ArgumentSource source;
  source.constant_ = std::move(value);
  return source;
}

absl::StatusOr<ArgumentSource> ArgumentSource::Create(const Argument& argument, const c10::TypePtr& type,
                                                      const Slots& slots, c10::Device device) {
  ArgumentSource source;
  source.type_ = type;
  if (const auto* name = std::get_if<exported::ValueName>(&argument.value)) {
    if (!slots.Has(name->name)) return absl::InvalidArgumentError(absl::StrCat("nothing makes '", name->name, "'"));
    source.slot_ = slots.Find(name->name);
    return source;
  }
  const auto* list = std::get_if<ArgumentList>(&argument.value);
  if (list == nullptr) {
    GPIPE_ASSIGN_OR_RETURN(c10::IValue value, std::visit(ToConstant{device}, argument.value));
    source.constant_ = Coerce(std::move(value), type);
    return source;
  }
  const auto list_type = Inner(type)->cast<c10::ListType>();
  if (list_type == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("a list where ", type->str(), " is expected"));
  source.type_ = list_type->getElementType();
  for (const Argument& element : *list) {
    GPIPE_ASSIGN_OR_RETURN(ArgumentSource made, Create(element, source.type_, slots, device));
    source.elements_.push_back(std::move(made));
  }
  return source;
}

c10::IValue ArgumentSource::Get(const Frame& frame) const {
  if (constant_) return *constant_;
  if (slot_) return Coerce(frame[*slot_], type_);
  std::vector<c10::IValue> elements;
  for (const ArgumentSource& element : elements_) elements.push_back(element.Get(frame));
  return MakeList(elements, type_);
}

}  // namespace gpipe::worker
