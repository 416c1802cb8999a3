#include "orchestrator/web/api_json.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/json_object.h"
#include "common/printable.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace gpipe::orchestrator {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int kMaxBodyDepth = 8;

// Numbers and the like may be text in JSON, so that all values are.
absl::StatusOr<nlohmann::json> ToJsonValue(const Message& request, const std::string& name, const std::string& text) {
  const FieldDescriptor* field = request.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr || field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return absl::InvalidArgumentError(absl::StrCat(Printable(name), ": there is no such parameter"));
  }
  if (field->is_repeated()) return std::vector<std::string>(absl::StrSplit(text, ',', absl::SkipEmpty()));
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) return text == "true" || text == "1";
  return text;
}

}  // namespace

absl::StatusOr<std::string> ToJson(const Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (status.ok()) return json;
  return absl::InternalError(absl::StrCat("an answer cannot be JSON: ", std::string(status.message())));
}

absl::Status ReadRequest(std::string_view body, const std::map<std::string, std::string>& fields, Message& request) {
  nlohmann::json json = nlohmann::json::object();
  if (!body.empty()) {
    absl::StatusOr<nlohmann::json> parsed = ParseJsonObject(body, kMaxBodyDepth);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("the body ", parsed.status().message()));
    }
    json = *std::move(parsed);
  }
  for (const auto& [name, text] : fields) {
    if (text.empty()) continue;
    GPIPE_ASSIGN_OR_RETURN(json[name], ToJsonValue(request, name, text));
  }
  const std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const auto status = google::protobuf::util::JsonStringToMessage(text, &request);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(Printable(std::string(status.message())));
}

FieldSelection::FieldSelection(std::string_view text) {
  for (const absl::string_view path : absl::StrSplit(AbslView(text), ',', absl::SkipEmpty())) {
    FieldSelection* at = this;
    for (const absl::string_view name : absl::StrSplit(path, '.')) {
      at = &at->parts_.try_emplace(std::string(name), FieldSelection()).first->second;
    }
  }
}

void FieldSelection::Trim(Message& message) const {
  if (all()) return;
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> set;
  reflection.ListFields(message, &set);
  for (const FieldDescriptor* field : set) {
    const auto wanted = parts_.find(field->name());
    if (wanted == parts_.end()) {
      reflection.ClearField(&message, field);
      continue;
    }
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
    if (!field->is_repeated()) {
      wanted->second.Trim(*reflection.MutableMessage(&message, field));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      wanted->second.Trim(*reflection.MutableRepeatedMessage(&message, field, i));
    }
  }
}

}  // namespace gpipe::orchestrator
