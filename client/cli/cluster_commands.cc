#include "client/cli/cluster_commands.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/api/json.h"
#include "client/cli/attend.h"
#include "client/cli/job_output.h"
#include "common/status_macros.h"
#include "common/version.h"

namespace gpipe::client {

absl::StatusOr<ExitCode> Health(const GlobalOptions& global) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::GetVersionResponse version, client.GetVersion());
  if (global.json()) {
    Print(ToJson(version, JsonStyle::kDocument) + "\n");
    return version.read_only().empty() ? ExitCode::kSucceeded : ExitCode::kFailed;
  }
  GPIPE_ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, client.ListWorkers());
  const auto idle = std::count_if(workers.workers().begin(), workers.workers().end(),
                                  [](const v1::Worker& worker) { return worker.state() == v1::Worker::STATE_IDLE; });
  Print(absl::StrCat("orchestrator ", version.version(), " at ", client.address(), " serves; ", workers.workers_size(),
                     " workers, ", idle, " idle\n"));
  if (version.read_only().empty()) return ExitCode::kSucceeded;
  Print(absl::StrCat("read-only: ", version.read_only(), "\n"));
  return ExitCode::kFailed;
}

absl::StatusOr<ExitCode> Version(const GlobalOptions& global) {
  v1::GetVersionResponse own;
  own.set_version(std::string(kVersion));
  Print(global.json() ? ToJson(own, JsonStyle::kDocument) + "\n" : absl::StrCat("gpipe ", own.version(), "\n"));
  if (global.orchestrator.empty() || global.json()) return ExitCode::kSucceeded;
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::GetVersionResponse theirs, client.GetVersion());
  Print(absl::StrCat("orchestrator ", theirs.version(), " at ", client.address(), "\n"));
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> WorkerList(const GlobalOptions& global) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, client.ListWorkers());
  Print(global.json() ? ToJson(workers, JsonStyle::kDocument) + "\n" : RenderWorkers(workers));
  return ExitCode::kSucceeded;
}

}  // namespace gpipe::client
