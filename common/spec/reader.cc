#include "common/spec/reader.h"

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/spec/yaml_message.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::spec {

int SourceMap::Line(std::string_view path) const {
  while (true) {
    if (const auto found = lines_.find(path); found != lines_.end()) return found->second;
    const size_t cut = path.find_last_of(".[");
    if (path.empty()) return 0;
    path = cut == std::string_view::npos ? "" : path.substr(0, cut);
  }
}

absl::Status ReadYaml(std::string_view text, google::protobuf::Message& message, SourceMap& lines) {
  FieldErrors errors;
  if (text.size() > kMaxSpecBytes) {
    errors.Add("", absl::StrCat("the document is over the limit of ", kMaxSpecBytes, " bytes"));
    return errors.ToStatus();
  }
  YamlMessageReader(errors, lines).Read(text, message);
  return errors.ToStatus();
}

absl::StatusOr<SpecFile> ReadSpecFile(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": is a folder"));
  }
  SpecFile file;
  file.path = path;
  GPIPE_ASSIGN_OR_RETURN(const std::string text,
                         ReadFile(path == kStandardInput ? "/dev/stdin" : path, kMaxSpecBytes + 1));  // To be refused.
  GPIPE_RETURN_IF_ERROR(WithLines(ReadYaml(text, file.spec, file.lines), file));
  return file;
}

absl::Status WithLines(const absl::Status& status, const SpecFile& file) {
  const std::vector<FieldViolation> violations = FieldViolations(status);
  if (violations.empty()) return status;
  std::string message;
  for (const FieldViolation& violation : violations) {
    if (!message.empty()) message += '\n';
    absl::StrAppend(&message, file.path.string(), ":");
    if (const int line = file.lines.Line(violation.field); line > 0) absl::StrAppend(&message, line, ":");
    absl::StrAppend(&message, " ", violation.field, violation.field.empty() ? "" : ": ", violation.description);
  }
  return absl::InvalidArgumentError(message);
}

}  // namespace gpipe::spec
