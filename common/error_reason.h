#ifndef GPIPE_COMMON_ERROR_REASON_H_
#define GPIPE_COMMON_ERROR_REASON_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace gpipe {

// Why a call failed, in a word that programs can tell apart: a google.rpc.ErrorInfo of the domain `gpipe` that a status
// carries through gRPC (common/grpc_status.h). Clients depend on these words; they stay what they are.
namespace reason {

inline constexpr std::string_view kInvalidSpec = "INVALID_SPEC";
inline constexpr std::string_view kInvalidRequest =
    "INVALID_REQUEST";  // Of every INVALID_ARGUMENT without another one.
inline constexpr std::string_view kJobNotFound = "JOB_NOT_FOUND";
inline constexpr std::string_view kArtifactNotFound = "ARTIFACT_NOT_FOUND";
inline constexpr std::string_view kWrongJobState = "WRONG_JOB_STATE";
inline constexpr std::string_view kNoCheckpoint = "NO_CHECKPOINT";
inline constexpr std::string_view kNoWorker = "NO_WORKER";
inline constexpr std::string_view kRequestIdReused = "REQUEST_ID_REUSED";
inline constexpr std::string_view kTooManyJobs = "TOO_MANY_JOBS";
inline constexpr std::string_view kTooManyWatchers = "TOO_MANY_WATCHERS";
inline constexpr std::string_view kOverloaded = "OVERLOADED";
inline constexpr std::string_view kDiskFull = "DISK_FULL";

}  // namespace reason

// `status` with that reason, unless it is OK or has one already: who knows more has said it before.
absl::Status WithReason(absl::Status status, std::string_view reason);

// With the reason of its code, if it has none: INVALID_REQUEST for INVALID_ARGUMENT, otherwise the code's name.
absl::Status WithSomeReason(absl::Status status);

// The reason that a status carries; empty when it carries none.
std::string ReasonOf(const absl::Status& status);

}  // namespace gpipe

#endif  // GPIPE_COMMON_ERROR_REASON_H_
