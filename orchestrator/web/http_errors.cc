#include "orchestrator/web/http_errors.h"

#include "common/error_reason.h"
#include "common/grpc_status.h"
#include "orchestrator/web/api_json.h"

namespace gpipe::orchestrator {

int HttpStatusOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

HttpResponse ErrorResponse(const absl::Status& error) {
  HttpResponse response;
  response.status = HttpStatusOf(error.code());
  response.content_type = "application/json";
  response.body = ToJson(ToProto(WithSomeReason(error))).value_or("{}");
  if (response.status == 401) response.headers["WWW-Authenticate"] = "Bearer";
  return response;
}

}  // namespace gpipe::orchestrator
