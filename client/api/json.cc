#include "client/api/json.h"

#include "google/protobuf/util/json_util.h"

namespace gpipe::client {

std::string ToJson(const google::protobuf::Message& message, JsonStyle style) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.add_whitespace = style == JsonStyle::kDocument;
  std::string json;
  // Fails only for malformed well-known types (a Timestamp out of range); then there is nothing better to print.
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) return "{}";
  while (!json.empty() && json.back() == '\n') json.pop_back();
  return json;
}

}  // namespace gpipe::client
