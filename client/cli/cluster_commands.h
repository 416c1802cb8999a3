#ifndef GPIPE_CLIENT_CLI_CLUSTER_COMMANDS_H_
#define GPIPE_CLIENT_CLI_CLUSTER_COMMANDS_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"

namespace gpipe::client {

// Whether the orchestrator answers, and with how many workers. UNAVAILABLE when it does not.
absl::StatusOr<ExitCode> Health(const GlobalOptions& global);
// Of this program, and of the orchestrator when one is given.
absl::StatusOr<ExitCode> Version(const GlobalOptions& global);

struct WorkerOptions {
  std::string name;
  std::string reason;  // Of draining it.
};

absl::StatusOr<ExitCode> WorkerList(const GlobalOptions& global);
// NOT_FOUND: there is no such worker.
absl::StatusOr<ExitCode> WorkerDescribe(const GlobalOptions& global, const WorkerOptions& options);
absl::StatusOr<ExitCode> WorkerDrain(const GlobalOptions& global, const WorkerOptions& options);
absl::StatusOr<ExitCode> WorkerUndrain(const GlobalOptions& global, const WorkerOptions& options);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_CLUSTER_COMMANDS_H_
