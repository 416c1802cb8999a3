#include "client/cli/admin_commands.h"

#include "absl/strings/str_cat.h"
#include "client/api/backup.h"
#include "client/cli/attend.h"
#include "client/cli/format.h"
#include "client/cli/interruption.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

void PrintSize(const GlobalOptions& global, const std::string& where, const BackupSize& size) {
  if (global.quiet) return;
  Print(absl::StrCat(where, ": ", size.files, size.files == 1 ? " file, " : " files, ", FormatBytes(size.bytes), "\n"));
}

}  // namespace

absl::StatusOr<ExitCode> AdminBackup(const GlobalOptions& global, const AdminOptions& options) {
  const Interruption interruption;
  ClusterClient client(global.client(interruption.token()));
  GPIPE_ASSIGN_OR_RETURN(const BackupSize size, TakeBackup(client, options.backup, !options.without_files));
  PrintSize(global, options.backup, size);
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> AdminRestore(const GlobalOptions& global, const AdminOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const BackupSize size, RestoreBackup(options.backup, options.state_dir));
  PrintSize(global, options.state_dir, size);
  return ExitCode::kSucceeded;
}

}  // namespace gpipe::client
