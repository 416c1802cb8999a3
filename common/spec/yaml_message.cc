#include "common/spec/yaml_message.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/spec/nearest_name.h"
#include "common/string_view.h"
#include "common/utf8.h"
#include "yaml-cpp/eventhandler.h"

namespace gpipe::spec {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// An alias repeats its anchor's content for a few bytes of text, so the file's size alone bounds neither the number of
// values nor their text. Without aliases, a document's values have no more text than the document.
constexpr int kMaxNodes = 200'000;
constexpr size_t kMaxTextBytes = kMaxSpecBytes;
// Longer than every field's name; unknown names become part of paths, which are kept.
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxShownBytes = 60;
constexpr size_t kMaxFlowDepth = 64;

std::string Child(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}

std::string DescribeNode(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Scalar:
      return absl::StrCat("'", AbslView(Utf8Prefix(node.Scalar().substr(0, kMaxShownBytes))), "'");
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Map:
      return "a mapping";
    default:
      return "nothing";
  }
}

std::string TypeName(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      return "a number";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "a mapping";
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return "a whole number, not negative";
    default:
      return "a whole number";
  }
}

std::vector<std::string> FieldNames(const Descriptor& descriptor) {
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.field_count(); ++i) names.push_back(descriptor.field(i)->name());
  return names;
}

bool LooksLikeName(std::string_view text) {
  const auto fits = [](char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  return !text.empty() && text.size() <= kMaxNameBytes && !absl::ascii_isdigit(static_cast<unsigned char>(text[0])) &&
         std::all_of(text.begin(), text.end(), fits);
}

// CheckpointMode's values are CHECKPOINT_MODE_...: the prefix that YAML leaves out.
std::string EnumPrefix(const EnumDescriptor& descriptor) {
  std::string prefix;
  for (const char c : descriptor.name()) {
    if (absl::ascii_isupper(c) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(c);
  }
  return prefix + "_";
}

// Quotes make a scalar text, whatever it looks like.
bool IsQuoted(const YAML::Node& node) { return node.Tag() == "!"; }

template <typename T>
bool ParseInteger(const YAML::Node& node, T& value) {
  return !IsQuoted(node) && absl::SimpleAtoi(node.Scalar(), &value);
}

// As YAML 1.1 writes them, which is what people's other files are.
bool ParseBool(const YAML::Node& node, bool& value) {
  const std::string text = absl::AsciiStrToLower(node.Scalar());
  value = text == "true" || text == "yes" || text == "on";
  return !IsQuoted(node) && (value || text == "false" || text == "no" || text == "off");
}

// `<<: *defaults`: what a mapping takes over from others, and does not give itself.
constexpr char kMergeKey[] = "<<";

// Fragments for anchors, as Compose has them: `x-defaults: &defaults {...}`, at the top of the document.
bool IsFragment(const std::string& path, const std::string& name) { return path.empty() && name.starts_with("x-"); }

// yaml-cpp recurses into nested flow collections; a bound keeps hostile input from exhausting the stack.
bool IsTooDeep(std::string_view text) {
  size_t depth = 0, deepest = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if ((c == ']' || c == '}') && depth > 0) --depth;
  }
  // Block nesting costs at least one column a level; dashes may stand side by side.
  size_t column = 0;
  for (const char c : text) {
    column = c == ' ' || c == '-' || c == '?' || c == ':' ? column + 1 : 0;
    deepest = std::max(deepest, column / 16);
  }
  return deepest > kMaxFlowDepth;
}

// Listens to nothing.
class IgnoreEvents : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// Not YAML::LoadAll: on some malformed text, `,` for one, it finds empty documents without end.
bool HasOneDocument(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  IgnoreEvents ignore;
  parser.HandleNextDocument(ignore);
  return !parser.HandleNextDocument(ignore);
}

}  // namespace

void YamlMessageReader::Read(std::string_view text, Message& message) {
  // yaml-cpp takes zero bytes for a sign of UTF-16, and its decoding of that is not checked.
  if (const size_t good = std::min(Utf8Prefix(text).size(), text.find('\0')); good < text.size()) {
    lines_.Add("", 1 + static_cast<int>(std::count(text.begin(), text.begin() + good, '\n')));
    return errors_.Add("", "the document is not UTF-8 text");
  }
  if (IsTooDeep(text)) return errors_.Add("", "the document is nested too deeply");
  try {
    const std::string copy(text);
    if (!HasOneDocument(copy)) return errors_.Add("", "there is more than one document");
    const YAML::Node document = YAML::Load(copy);
    if (document.IsNull()) return errors_.Add("", "the document is empty");
    AddLine("", document);
    ReadMessage(document, "", message);
  } catch (const YAML::Exception& error) {
    lines_.Add("", error.mark.line + 1);
    errors_.Add("", absl::StrCat("line ", error.mark.line + 1, ", column ", error.mark.column + 1,
                                 ": not good YAML: ", error.msg));
  }
}

bool YamlMessageReader::Count(const YAML::Node& node) {
  if (too_large_) return false;
  ++nodes_;
  if (node.IsScalar()) text_bytes_ += node.Scalar().size();
  too_large_ = nodes_ > kMaxNodes || text_bytes_ > kMaxTextBytes;
  if (too_large_) errors_.Add("", "the document has too many values, or too much text, once its aliases are expanded");
  return !too_large_;
}

void YamlMessageReader::AddLine(const std::string& path, const YAML::Node& node) {
  if (node.Mark().line >= 0) lines_.Add(path, node.Mark().line + 1);
}

void YamlMessageReader::ReadMessage(const YAML::Node& node, const std::string& path, Message& message) {
  if (node.IsNull()) return;
  if (node.IsScalar() && ReadBareName(node, path, message)) return;
  if (!node.IsMap()) return errors_.Add(path, absl::StrCat("must be a mapping, not ", DescribeNode(node)));
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (entry.first.IsScalar() && entry.first.Scalar() == kMergeKey) {
      continue;  // Below, when it is known what the mapping gives itself.
    } else if (!entry.first.IsScalar() || entry.first.Scalar().size() > kMaxNameBytes) {
      errors_.Add(path, "has a key that is not a name");
    } else if (!seen.insert(entry.first.Scalar()).second) {
      AddLine(Child(path, entry.first.Scalar()), entry.first);
      errors_.Add(Child(path, entry.first.Scalar()), "is given twice");
    } else {
      ReadEntry(entry.first, entry.second, path, message);
    }
  }
  MergeInto(node, path, message, seen, /*depth=*/0);
}

void YamlMessageReader::MergeInto(const YAML::Node& node, const std::string& path, Message& message,
                                  std::set<std::string>& seen, size_t depth) {
  for (const auto& entry : node) {
    if (!entry.first.IsScalar() || entry.first.Scalar() != kMergeKey) continue;
    if (!entry.second.IsSequence()) {
      Merge(entry.second, path, message, seen, depth);
    } else {
      for (const YAML::Node& each : entry.second) Merge(each, path, message, seen, depth);
    }
  }
}

void YamlMessageReader::Merge(const YAML::Node& from, const std::string& path, Message& message,
                              std::set<std::string>& seen, size_t depth) {
  const std::string key = Child(path, kMergeKey);
  if (!Count(from)) return;
  if (!from.IsMap()) return errors_.Add(key, "must be a mapping, or a list of mappings");
  if (depth == kMaxFlowDepth) return errors_.Add(key, "is nested too deeply");  // In itself, perhaps.
  for (const auto& entry : from) {
    if (!entry.first.IsScalar() || entry.first.Scalar() == kMergeKey) continue;
    if (seen.insert(entry.first.Scalar()).second) ReadEntry(entry.first, entry.second, path, message);
  }
  MergeInto(from, path, message, seen, depth + 1);
}

void YamlMessageReader::ReadEntry(const YAML::Node& key, const YAML::Node& value, const std::string& path,
                                  Message& message) {
  if (!Count(value)) return;
  const std::string& name = key.Scalar();
  if (IsFragment(path, name)) return;
  const std::string child = Child(path, name);
  AddLine(child, key);
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr) return AddUnknown(name, path, message);
  if (CheckOneof(child, *field, message)) ReadField(value, child, *field, message);
}

bool YamlMessageReader::CheckOneof(const std::string& path, const FieldDescriptor& field, const Message& message) {
  const auto* oneof = field.real_containing_oneof();
  if (oneof == nullptr || !message.GetReflection()->HasOneof(message, oneof)) return true;
  const FieldDescriptor* other = message.GetReflection()->GetOneofFieldDescriptor(message, oneof);
  errors_.Add(path, absl::StrCat("cannot stand beside ", other->name(), ": give one of them"));
  return false;
}

void YamlMessageReader::AddUnknown(const std::string& name, const std::string& path, const Message& message) {
  const std::string nearest = NearestName(name, FieldNames(*message.GetDescriptor()));
  errors_.Add(Child(path, name), nearest.empty() ? "is not a field here"
                                                 : absl::StrCat("is not a field here; did you mean ", nearest, "?"));
}

bool YamlMessageReader::ReadBareName(const YAML::Node& node, const std::string& path, Message& message) {
  const std::string& name = node.Scalar();
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  const bool chooses = message.GetDescriptor()->real_oneof_decl_count() > 0 && !path.empty();
  if (field == nullptr && chooses && LooksLikeName(name)) {
    AddUnknown(name, path, message);
    return true;
  }
  if (field == nullptr || field->real_containing_oneof() == nullptr || field->message_type() == nullptr) return false;
  AddLine(Child(path, field->name()), node);
  message.GetReflection()->MutableMessage(&message, field);
  return true;
}

void YamlMessageReader::ReadField(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                                  Message& message) {
  if (field.is_repeated()) return ReadRepeated(node, path, field, message);
  if (node.IsNull() && field.message_type() == nullptr) return errors_.Add(path, "has no value");
  ReadValue(node, path, field, message);
}

void YamlMessageReader::ReadRepeated(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                                     Message& message) {
  if (node.IsNull()) return errors_.Add(path, "has no value");
  if (!node.IsSequence()) return ReadValue(node, path, field, message);
  for (size_t i = 0; i < node.size(); ++i) {
    if (!Count(node[i])) return;
    const std::string element = absl::StrCat(path, "[", i, "]");
    AddLine(element, node[i]);
    if (node[i].IsNull()) {
      errors_.Add(element, "has no value");
    } else {
      ReadValue(node[i], element, field, message);
    }
  }
}

void YamlMessageReader::ReadValue(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                                  Message& message) {
  const Reflection& reflection = *message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    Message* child =
        field.is_repeated() ? reflection.AddMessage(&message, &field) : reflection.MutableMessage(&message, &field);
    return ReadMessage(node, path, *child);
  }
  if (!node.IsScalar()) {
    return errors_.Add(path, absl::StrCat("must be ", TypeName(field), ", not ", DescribeNode(node)));
  }
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) return ReadEnum(node, path, field, message);
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_STRING) return ReadNumber(node, path, field, message);
  if (field.is_repeated()) {
    reflection.AddString(&message, &field, node.Scalar());
  } else {
    reflection.SetString(&message, &field, node.Scalar());
  }
}

void YamlMessageReader::ReadNumber(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                                   Message& message) {
  const Reflection& reflection = *message.GetReflection();
  const bool repeated = field.is_repeated();
  bool good = false;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      if (bool value; (good = ParseBool(node, value))) reflection.SetBool(&message, &field, value);
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      if (uint64_t value; (good = ParseInteger(node, value))) reflection.SetUInt64(&message, &field, value);
      break;
    case FieldDescriptor::CPPTYPE_INT32:
      if (int32_t value; (good = !repeated && ParseInteger(node, value))) reflection.SetInt32(&message, &field, value);
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      if (int64_t value; (good = ParseInteger(node, value))) {
        repeated ? reflection.AddInt64(&message, &field, value) : reflection.SetInt64(&message, &field, value);
      }
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      if (double value; (good = !IsQuoted(node) && absl::SimpleAtod(node.Scalar(), &value))) {
        repeated ? reflection.AddDouble(&message, &field, value) : reflection.SetDouble(&message, &field, value);
      }
      break;
    default:
      break;
  }
  if (!good) errors_.Add(path, absl::StrCat("must be ", TypeName(field), ", not ", DescribeNode(node)));
}

void YamlMessageReader::ReadEnum(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                                 Message& message) {
  const EnumDescriptor& descriptor = *field.enum_type();
  const std::string prefix = EnumPrefix(descriptor);
  std::vector<std::string> names;
  for (int i = 1; i < descriptor.value_count(); ++i) {  // 0 is UNSPECIFIED.
    names.push_back(absl::AsciiStrToLower(absl::StripPrefix(descriptor.value(i)->name(), prefix)));
    if (names.back() == node.Scalar()) {
      return message.GetReflection()->SetEnum(&message, &field, descriptor.value(i));
    }
  }
  errors_.Add(path, absl::StrCat("must be one of ", absl::StrJoin(names, ", "), ", not ", DescribeNode(node)));
}

}  // namespace gpipe::spec
