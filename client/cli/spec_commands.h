#ifndef GPIPE_CLIENT_CLI_SPEC_COMMANDS_H_
#define GPIPE_CLIENT_CLI_SPEC_COMMANDS_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// `gpipe plan` and `gpipe validate`: the whole check of a spec, as SubmitJob makes it, on the orchestrator that is
// given or else on a private cluster of one worker.

struct SpecOptions {
  std::string spec;
  int workers = 0;  // Plan for so many; 0: as the spec says.
  std::string svg;  // A file for the drawing of the plan; empty: none.
};

absl::StatusOr<ExitCode> PlanSpec(const GlobalOptions& global, const SpecOptions& options);
absl::StatusOr<ExitCode> ValidateSpec(const GlobalOptions& global, const SpecOptions& options);

// Stages, what crosses between them, the clock-cycle grid and the bubble, for a person.
std::string RenderPlan(const v1::PlanJobResponse& response);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_SPEC_COMMANDS_H_
