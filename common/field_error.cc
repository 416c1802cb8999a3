#include "common/field_error.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "common/printable.h"
#include "common/string_view.h"
#include "google/rpc/error_details.pb.h"

namespace gpipe {
namespace {

constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr size_t kMaxViolations = 100;

}  // namespace

void FieldErrors::Add(std::string_view field, std::string_view description) {
  if (violations_.size() == kMaxViolations) {
    ++left_out_;
  } else {
    violations_.push_back({Printable(field), Printable(description)});
  }
}

void FieldErrors::Add(const absl::Status& status) {
  for (const FieldViolation& violation : FieldViolations(status)) Add(violation.field, violation.description);
}

absl::Status FieldErrors::ToStatus() const {
  if (violations_.empty()) return absl::OkStatus();
  std::string message;
  google::rpc::BadRequest bad_request;
  std::vector<FieldViolation> shown = violations_;
  if (left_out_ > 0) shown.push_back({"", absl::StrCat("and ", left_out_, " more")});
  for (const FieldViolation& violation : shown) {
    if (!message.empty()) message += '\n';
    absl::StrAppend(&message, violation.field, violation.field.empty() ? "" : ": ", violation.description);
    auto* field = bad_request.add_field_violations();
    field->set_field(violation.field);
    field->set_description(violation.description);
  }
  absl::Status status = absl::InvalidArgumentError(message);
  // A view, because clang and g++ mangle Cord's constructor from a string differently, and Debian's abseil is g++'s.
  const std::string payload = bad_request.SerializeAsString();
  status.SetPayload(kBadRequestUrl, absl::Cord(AbslView(payload)));
  return status;
}

absl::Status FieldError(std::string_view field, std::string_view description) {
  FieldErrors errors;
  errors.Add(field, description);
  return errors.ToStatus();
}

std::vector<FieldViolation> FieldViolations(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  const auto payload = status.GetPayload(kBadRequestUrl);
  google::rpc::BadRequest bad_request;
  if (!payload.has_value() || !bad_request.ParseFromString(std::string(*payload))) return violations;
  for (const auto& field : bad_request.field_violations()) {
    violations.push_back({field.field(), field.description()});
  }
  return violations;
}

}  // namespace gpipe
