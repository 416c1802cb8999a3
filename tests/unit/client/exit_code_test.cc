#include "client/cli/exit_code.h"

#include <string>
#include <utility>

#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

TEST(ExitCodes, EveryStatusHasOne) {
  const std::pair<absl::StatusCode, ExitCode> expected[] = {
      {absl::StatusCode::kOk, ExitCode::kSucceeded},
      {absl::StatusCode::kCancelled, ExitCode::kCancelled},
      {absl::StatusCode::kUnknown, ExitCode::kFailed},
      {absl::StatusCode::kInvalidArgument, ExitCode::kUsage},
      {absl::StatusCode::kDeadlineExceeded, ExitCode::kTimedOut},
      {absl::StatusCode::kNotFound, ExitCode::kNotFound},
      {absl::StatusCode::kAlreadyExists, ExitCode::kFailed},
      {absl::StatusCode::kPermissionDenied, ExitCode::kDenied},
      {absl::StatusCode::kResourceExhausted, ExitCode::kFailed},
      {absl::StatusCode::kFailedPrecondition, ExitCode::kUsage},
      {absl::StatusCode::kAborted, ExitCode::kFailed},
      {absl::StatusCode::kOutOfRange, ExitCode::kUsage},
      {absl::StatusCode::kUnimplemented, ExitCode::kFailed},
      {absl::StatusCode::kInternal, ExitCode::kFailed},
      {absl::StatusCode::kUnavailable, ExitCode::kUnreachable},
      {absl::StatusCode::kDataLoss, ExitCode::kFailed},
      {absl::StatusCode::kUnauthenticated, ExitCode::kDenied},
  };
  for (const auto& [status, code] : expected) {
    EXPECT_EQ(ExitCodeOf(absl::Status(status, "")), code) << static_cast<int>(status);
  }
}

TEST(ExitCodes, EveryTerminalStateHasOne) {
  EXPECT_EQ(ExitCodeOf(v1::Job::STATE_SUCCEEDED), ExitCode::kSucceeded);
  EXPECT_EQ(ExitCodeOf(v1::Job::STATE_FAILED), ExitCode::kFailed);
  EXPECT_EQ(ExitCodeOf(v1::Job::STATE_CANCELLED), ExitCode::kCancelled);
}

TEST(ExitCodes, TheTableNamesAll) {
  for (int code = 0; code <= 7; ++code) {
    EXPECT_NE(std::string(kExitCodeTable).find("\n  " + std::to_string(code) + "  "), std::string::npos) << code;
  }
}

}  // namespace
}  // namespace gpipe::client
