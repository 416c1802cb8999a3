#include "client/cli/spec_commands.h"

#include "absl/strings/str_cat.h"
#include "client/api/json.h"
#include "client/api/submission.h"
#include "client/cli/attend.h"
#include "client/cli/plan_drawing.h"
#include "client/cli/private_cluster.h"
#include "client/cli/run_command.h"
#include "client/local/machine.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

// As `gpipe run` would run it; one worker stands for all.
absl::StatusOr<v1::PlanJobResponse> PlanPrivately(spec::SpecFile file, const PlanOptions& plan, bool quiet) {
  RunOptions run;
  run.workers = plan.workers;
  const int gpus = file.spec.pipeline().device() == v1::DEVICE_CUDA ? CountGpus() : 0;
  if (gpus == 0) run.device = "cpu";  // Where there is no GPU, what a CPU can say of the spec.
  GPIPE_ASSIGN_OR_RETURN(LocalClusterOptions options, FitCluster(run, CountCores(), gpus, file.spec));
  options.workers = 1;
  PrivateCluster cluster;
  GPIPE_RETURN_IF_ERROR(cluster.Start(options, ShowFilesOn(stderr, quiet)));
  absl::StatusOr<v1::PlanJobResponse> response = Plan(cluster.client(), file, plan);
  if (!response.ok()) return cluster.Explain(response.status());
  return response;
}

absl::StatusOr<v1::PlanJobResponse> PlanFile(const GlobalOptions& global, const SpecOptions& options,
                                             bool validate_only) {
  GPIPE_ASSIGN_OR_RETURN(const spec::SpecFile file, LoadSpec(options.spec));
  const PlanOptions plan = {options.workers, validate_only};
  if (global.orchestrator.empty()) return PlanPrivately(file, plan, global.quiet);
  ClusterClient client(global.client());
  return Plan(client, file, plan);
}

absl::Status WriteDrawing(const v1::PlanJobResponse& response, const std::string& file) {
  if (file.empty()) return absl::OkStatus();
  const absl::Status written = WriteFileAtomically(file, DrawPlan(response));
  return written.ok() ? written : absl::InvalidArgumentError(absl::StrCat("--svg: ", written.message()));
}

}  // namespace

absl::StatusOr<ExitCode> PlanSpec(const GlobalOptions& global, const SpecOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const v1::PlanJobResponse response, PlanFile(global, options, /*validate_only=*/false));
  GPIPE_RETURN_IF_ERROR(WriteDrawing(response, options.svg));
  Print(global.json() ? ToJson(response, JsonStyle::kDocument) + "\n" : RenderPlan(response));
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> ValidateSpec(const GlobalOptions& global, const SpecOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const v1::PlanJobResponse response, PlanFile(global, options, /*validate_only=*/true));
  if (global.json()) {
    Print(ToJson(response, JsonStyle::kDocument) + "\n");
  } else if (!global.quiet) {
    const v1::Plan& plan = response.plan();
    Print(absl::StrCat(
        options.spec, ": valid: ", plan.layers_size(), " layers",
        plan.stages().empty() ? ", to be cut by measured times" : absl::StrCat(" in ", plan.stages_size(), " stages"),
        "\n"));
    for (const std::string& note : response.notes()) Print(absl::StrCat(note, "\n"));
  }
  return ExitCode::kSucceeded;
}

}  // namespace gpipe::client
