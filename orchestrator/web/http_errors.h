#ifndef GPIPE_ORCHESTRATOR_WEB_HTTP_ERRORS_H_
#define GPIPE_ORCHESTRATOR_WEB_HTTP_ERRORS_H_

#include "absl/status/status.h"
#include "common/http/http_message.h"

namespace gpipe::orchestrator {

// As google.rpc.Code says it for each code.
int HttpStatusOf(absl::StatusCode code);

// The body is the google.rpc.Status that gRPC would have sent, as JSON.
HttpResponse ErrorResponse(const absl::Status& error);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_HTTP_ERRORS_H_
