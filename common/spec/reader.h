#ifndef GPIPE_COMMON_SPEC_READER_H_
#define GPIPE_COMMON_SPEC_READER_H_

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::spec {

inline constexpr size_t kMaxSpecBytes = 1 << 20;

// Where each field of a document came from: path (`model.sequential[3].linear`) -> line, from 1.
class SourceMap {
 public:
  // Of two lines for one path the later holds: it is the one to show when a field is given twice.
  void Add(std::string path, int line) { lines_.insert_or_assign(std::move(path), line); }
  // The line of the field, or of the nearest field around it, at last the document's; 0 when there is none.
  int Line(std::string_view path) const;

 private:
  std::map<std::string, int, std::less<>> lines_;
};

// Fills any message from YAML by reflection: keys are field names, enums their short lower-case names, a repeated
// field also takes a single value, a message with no fields takes `{}` or nothing. There is no code per field.
// INVALID_ARGUMENT (common/field_error.h) lists unknown fields, duplicate keys, wrong types and out-of-range numbers,
// each `field: what`; `lines` then still maps what was read.
absl::Status ReadYaml(std::string_view text, google::protobuf::Message& message, SourceMap& lines);

// A spec file as written: its message, and lines for later errors.
struct SpecFile {
  std::filesystem::path path;
  v1::JobSpec spec;
  SourceMap lines;
};

// In place of a file's name.
inline constexpr char kStandardInput[] = "-";

// Reads a file of at most kMaxSpecBytes, or standard input. Errors read `FILE:LINE: field: what`.
absl::StatusOr<SpecFile> ReadSpecFile(const std::filesystem::path& path);

// Prefixes each field violation that `status` carries with `FILE:LINE:`; other statuses pass unchanged.
absl::Status WithLines(const absl::Status& status, const SpecFile& file);

}  // namespace gpipe::spec

#endif  // GPIPE_COMMON_SPEC_READER_H_
