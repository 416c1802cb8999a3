#ifndef GPIPE_CLIENT_CLI_TIMELINE_COMMAND_H_
#define GPIPE_CLIENT_CLI_TIMELINE_COMMAND_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"
#include "client/cli/job_commands.h"
#include "gpipe/v1/monitoring.pb.h"

namespace gpipe::client {

// `gpipe job timeline`: one of the last steps in words, as a drawing or as a trace, by the name of the file that is
// asked for. INVALID_ARGUMENT: its name says neither.
absl::StatusOr<ExitCode> JobTimeline(const GlobalOptions& global, const JobOptions& options);

// A drawing, if the file's name ends in .svg, else a trace.
absl::Status WriteTimeline(const v1::StepTimeline& timeline, const std::string& file);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_TIMELINE_COMMAND_H_
