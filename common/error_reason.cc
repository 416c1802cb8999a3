#include "common/error_reason.h"

#include <utility>

#include "absl/strings/cord.h"
#include "common/string_view.h"
#include "google/rpc/error_details.pb.h"

namespace gpipe {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kDomain[] = "gpipe";

}  // namespace

absl::Status WithReason(absl::Status status, std::string_view reason) {
  if (status.ok() || status.GetPayload(kErrorInfoUrl).has_value()) return status;
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kDomain);
  // A view, as in field_error.cc.
  const std::string payload = info.SerializeAsString();
  status.SetPayload(kErrorInfoUrl, absl::Cord(AbslView(payload)));
  return status;
}

absl::Status WithSomeReason(absl::Status status) {
  if (absl::IsInvalidArgument(status)) return WithReason(std::move(status), reason::kInvalidRequest);
  const std::string code = absl::StatusCodeToString(status.code());
  return WithReason(std::move(status), code);
}

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrorInfoUrl);
  google::rpc::ErrorInfo info;
  if (!payload.has_value() || !info.ParseFromString(std::string(*payload))) return "";
  return info.reason();
}

}  // namespace gpipe
