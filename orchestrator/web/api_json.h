#ifndef GPIPE_ORCHESTRATOR_WEB_API_JSON_H_
#define GPIPE_ORCHESTRATOR_WEB_API_JSON_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

namespace gpipe::orchestrator {

// The API's messages as JSON: proto3's mapping (int64 are text), with fields named as in the .proto.
absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message);

// Fills `request` from a body, which is a JSON object or empty, and then from `fields`, by name: of the path and the
// query, lists with commas. INVALID_ARGUMENT says what is wrong.
absl::Status ReadRequest(std::string_view body, const std::map<std::string, std::string>& fields,
                         google::protobuf::Message& request);

// Which fields of an answer are wanted, as Google's APIs have it: `jobs.id,jobs.state,next_page_token`.
class FieldSelection {
 public:
  // Empty: all fields.
  explicit FieldSelection(std::string_view text);
  // Clears what is not wanted. Names that there are not stand for nothing.
  void Trim(google::protobuf::Message& message) const;

 private:
  FieldSelection() = default;
  bool all() const { return parts_.empty(); }
  std::map<std::string, FieldSelection, std::less<>> parts_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_API_JSON_H_
