// Any text: the reader and the validator must end with a status. A spec they accept must stay good, and stay the same,
// once its defaults are written out.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "common/field_error.h"
#include "common/spec/reader.h"
#include "common/spec/validator.h"
#include "google/protobuf/util/message_differencer.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  gpipe::v1::JobSpec spec;
  gpipe::spec::SourceMap lines;
  const absl::Status read = gpipe::spec::ReadYaml(text, spec, lines);
  if (!read.ok()) {
    Require(!gpipe::FieldViolations(read).empty());
    return 0;
  }
  if (!gpipe::spec::Validate(spec).ok()) return 0;
  const gpipe::v1::JobSpec filled = gpipe::spec::WithDefaults(spec);
  Require(gpipe::spec::Validate(filled).ok());
  Require(google::protobuf::util::MessageDifferencer::Equals(filled, gpipe::spec::WithDefaults(filled)));
  return 0;
}
