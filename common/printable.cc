#include "common/printable.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "common/utf8.h"

namespace gpipe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

bool IsControl(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
}

// U+0080 to U+009F are control characters of their own, in UTF-8 behind this byte.
constexpr char kLatinLead = '\xc2';

bool IsControlAt(std::string_view text, size_t at) {
  if (IsControl(text[at])) return true;
  return text[at] == kLatinLead && at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) < 0xa0;
}

bool IsPrintable(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (IsControlAt(text, i)) return false;
  }
  return Utf8Prefix(text).size() == text.size();
}

void AppendEscaped(char c, std::string& out) { absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned char>(c)); }

// Calls `change` with each text of a field.
template <typename Change>
void ForEachText(Message& message, const FieldDescriptor& field, const Change& change) {
  const Reflection& reflection = *message.GetReflection();
  if (!field.is_repeated())
    return reflection.SetString(&message, &field, change(reflection.GetString(message, &field)));
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    reflection.SetRepeatedString(&message, &field, i, change(reflection.GetRepeatedString(message, &field, i)));
  }
}

void MakePrintableIn(Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  if (!field.is_repeated()) return MakePrintable(*reflection.MutableMessage(&message, &field));
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    MakePrintable(*reflection.MutableRepeatedMessage(&message, &field, i));
  }
}

}  // namespace

std::string Printable(std::string_view text) {
  if (IsPrintable(text)) return std::string(text);
  std::string shown;
  while (!text.empty()) {
    const size_t good = Utf8Prefix(text).size();
    for (size_t i = 0; i < good; ++i) {
      if (!IsControlAt(text, i)) {
        shown += text[i];
        continue;
      }
      AppendEscaped(text[i], shown);
      if (text[i] == kLatinLead) AppendEscaped(text[++i], shown);
    }
    text.remove_prefix(good);
    if (text.empty()) break;
    AppendEscaped(text.front(), shown);
    text.remove_prefix(1);
  }
  return shown;
}

void MakePrintable(Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->type() == FieldDescriptor::TYPE_STRING) ForEachText(message, *field, Printable);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) MakePrintableIn(message, *field);
  }
}

}  // namespace gpipe
