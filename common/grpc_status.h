#ifndef GPIPE_COMMON_GRPC_STATUS_H_
#define GPIPE_COMMON_GRPC_STATUS_H_

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace gpipe {

// The one place where statuses change their type. Codes are the same numbers; payloads (google.rpc.BadRequest,
// google.rpc.ErrorInfo) travel as google.rpc.Status in the error details. ToGrpc gives every error a
// reason (common/error_reason.h), and shortens what would not fit a call's trailers: of the message the beginning
// stays, of a BadRequest the first violations.
grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

google::rpc::Status ToProto(const absl::Status& status);
absl::Status FromProto(const google::rpc::Status& status);

}  // namespace gpipe

#endif  // GPIPE_COMMON_GRPC_STATUS_H_
