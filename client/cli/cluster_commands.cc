#include "client/cli/cluster_commands.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/api/json.h"
#include "client/cli/attend.h"
#include "client/cli/worker_output.h"
#include "common/status_macros.h"
#include "common/version.h"

namespace gpipe::client {
namespace {

// `; 3 workers, 1 idle`. Nothing for those who may not see them: health is for everybody.
absl::StatusOr<std::string> WorkersInWords(const absl::StatusOr<v1::ListWorkersResponse>& listed) {
  if (absl::IsPermissionDenied(listed.status()) || absl::IsUnauthenticated(listed.status())) return "";
  GPIPE_RETURN_IF_ERROR(listed.status());
  const auto& workers = listed->workers();
  const auto idle = std::count_if(workers.begin(), workers.end(),
                                  [](const v1::Worker& worker) { return worker.state() == v1::Worker::STATE_IDLE; });
  return absl::StrCat("; ", workers.size(), " workers, ", idle, " idle");
}

}  // namespace

absl::StatusOr<ExitCode> Health(const GlobalOptions& global) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::GetVersionResponse version, client.GetVersion());
  if (global.json()) {
    Print(ToJson(version, JsonStyle::kDocument) + "\n");
    return version.read_only().empty() ? ExitCode::kSucceeded : ExitCode::kFailed;
  }
  GPIPE_ASSIGN_OR_RETURN(const std::string workers, WorkersInWords(client.ListWorkers()));
  Print(absl::StrCat("orchestrator ", version.version(), " at ", client.address(), " serves", workers, "\n"));
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

absl::StatusOr<ExitCode> WorkerDescribe(const GlobalOptions& global, const WorkerOptions& options) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::ListWorkersResponse listed, client.ListWorkers());
  const auto& workers = listed.workers();
  const auto worker = std::find_if(workers.begin(), workers.end(),
                                   [&](const v1::Worker& candidate) { return candidate.name() == options.name; });
  if (worker == workers.end()) return absl::NotFoundError(absl::StrCat("there is no worker '", options.name, "'"));
  Print(global.json() ? ToJson(*worker, JsonStyle::kDocument) + "\n" : RenderWorker(*worker));
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> WorkerDrain(const GlobalOptions& global, const WorkerOptions& options) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::Worker worker, client.DrainWorker(options.name, options.reason));
  const std::string job = worker.attempt().job();
  Print(global.json() ? ToJson(worker, JsonStyle::kDocument) + "\n"
                      : absl::StrCat("worker ", worker.name(), " gets no new work",
                                     job.empty() ? "" : absl::StrCat("; its part in ", job, " goes on"), "\n"));
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> WorkerUndrain(const GlobalOptions& global, const WorkerOptions& options) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::Worker worker, client.UndrainWorker(options.name));
  Print(global.json() ? ToJson(worker, JsonStyle::kDocument) + "\n"
                      : absl::StrCat("worker ", worker.name(), " gets work again\n"));
  return ExitCode::kSucceeded;
}

}  // namespace gpipe::client
