#ifndef GPIPE_CLIENT_CLI_ATTEND_H_
#define GPIPE_CLIENT_CLI_ATTEND_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/api/follow.h"
#include "client/cli/display.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"
#include "client/cli/job_progress.h"

namespace gpipe::client {

// Follows a job with a display until it ends, whichever way.
absl::StatusOr<JobProgress> Attend(ClusterClient& client, const std::string& id, const FollowOptions& options,
                                   Display& display);

// Prints how the job ended: with -o json the job on stdout; else words on `words`, which -q leaves out of a success,
// and what was measured beside what was forecast. Returns what to exit with.
ExitCode ReportEnd(ClusterClient& client, const JobProgress& progress, const GlobalOptions& global, std::FILE* words);

// RenderForecast of a job with the steps that it has done so far. Empty without a forecast.
absl::StatusOr<std::string> ForecastTable(ClusterClient& client, const v1::Job& job);

// A document or a table on stdout.
void Print(const std::string& text);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_ATTEND_H_
