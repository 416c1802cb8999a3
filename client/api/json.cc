#include "client/api/json.h"

#include <cstdlib>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace gpipe::client {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using Json = nlohmann::ordered_json;

// proto3's JSON has 64-bit numbers as text, because JavaScript's numbers are doubles.
void MakeNumber(Json& value, bool is_signed) {
  if (!value.is_string()) return;
  const std::string& text = value.get_ref<const std::string&>();
  value = is_signed ? Json(static_cast<int64_t>(std::strtoll(text.c_str(), nullptr, 10)))
                    : Json(static_cast<uint64_t>(std::strtoull(text.c_str(), nullptr, 10)));
}

void MakeNumbersIn(Json& object, const Descriptor& descriptor);

void MakeNumbersOf(Json& value, const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
      return MakeNumber(value, /*is_signed=*/true);
    case FieldDescriptor::CPPTYPE_UINT64:
      return MakeNumber(value, /*is_signed=*/false);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MakeNumbersIn(value, *field.message_type());
    default:
      return;
  }
}

// Messages with a form of their own, times and durations, are no objects.
void MakeNumbersIn(Json& object, const Descriptor& descriptor) {
  if (!object.is_object()) return;
  for (auto& [name, value] : object.items()) {
    const FieldDescriptor* field = descriptor.FindFieldByName(name);
    if (field == nullptr) continue;
    if (field->is_map()) {
      for (Json& entry : value) MakeNumbersOf(entry, *field->message_type()->map_value());
    } else if (field->is_repeated()) {
      for (Json& element : value) MakeNumbersOf(element, *field);
    } else {
      MakeNumbersOf(value, *field);
    }
  }
}

}  // namespace

std::string ToJson(const google::protobuf::Message& message, JsonStyle style) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  // Fails only for malformed well-known types (a Timestamp out of range); then there is nothing better to print.
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) return "{}";
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  MakeNumbersIn(json, *message.GetDescriptor());
  return json.dump(style == JsonStyle::kDocument ? 1 : -1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace gpipe::client
