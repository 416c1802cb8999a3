#ifndef GPIPE_CLIENT_CLI_ADMIN_COMMANDS_H_
#define GPIPE_CLIENT_CLI_ADMIN_COMMANDS_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"

namespace gpipe::client {

struct AdminOptions {
  std::string backup;  // Folder or archive.
  std::string state_dir;
  bool without_files = false;
};

// As client/api/backup.h, the second one without an orchestrator.
absl::StatusOr<ExitCode> AdminBackup(const GlobalOptions& global, const AdminOptions& options);
absl::StatusOr<ExitCode> AdminRestore(const GlobalOptions& global, const AdminOptions& options);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_ADMIN_COMMANDS_H_
