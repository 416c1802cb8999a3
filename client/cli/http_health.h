#ifndef GPIPE_CLIENT_CLI_HTTP_HEALTH_H_
#define GPIPE_CLIENT_CLI_HTTP_HEALTH_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"

namespace gpipe::client {

struct HealthOptions {
  std::string http;    // HOST:PORT of a program's --http-listen; empty: the orchestrator is asked, by gRPC.
  bool ready = false;  // Ask whether it is ready, not only whether it lives.
};

// What the program at options.http says of itself: for containers, which have no other program that could ask. By HTTPS
// where certificates are given. kFailed: it says no; UNAVAILABLE: nobody answers.
absl::StatusOr<ExitCode> HttpHealth(const GlobalOptions& global, const HealthOptions& options);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_HTTP_HEALTH_H_
