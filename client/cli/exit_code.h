#ifndef GPIPE_CLIENT_CLI_EXIT_CODE_H_
#define GPIPE_CLIENT_CLI_EXIT_CODE_H_

#include "absl/status/status.h"
#include "gpipe/v1/job.pb.h"

namespace gpipe::client {

// What a script can rely on; the table is in --help.
enum class ExitCode {
  kSucceeded = 0,
  kFailed = 1,
  kUsage = 2,
  kUnreachable = 3,
  kNotFound = 4,
  kCancelled = 5,
  kTimedOut = 6,
  kDenied = 7,
};

inline constexpr char kExitCodeTable[] =
    "EXIT CODES\n"
    "  0  succeeded\n"
    "  1  the job failed, or something did that is none of the following\n"
    "  2  usage, a bad spec, or a request that does not fit the state of the job\n"
    "  3  the orchestrator is unreachable\n"
    "  4  not found\n"
    "  5  cancelled\n"
    "  6  timed out\n"
    "  7  denied\n";

ExitCode ExitCodeOf(const absl::Status& status);

// REQUIRES: a terminal state.
ExitCode ExitCodeOf(v1::Job::State state);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_EXIT_CODE_H_
