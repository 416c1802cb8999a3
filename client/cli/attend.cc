#include "client/cli/attend.h"

#include "absl/strings/str_format.h"
#include "client/api/json.h"
#include "client/cli/job_output.h"
#include "client/cli/render.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

// Enough for a median, also of a job of millions of steps.
constexpr int kStepsToCompare = 1000;

}  // namespace

absl::StatusOr<JobProgress> Attend(ClusterClient& client, const std::string& id, const FollowOptions& options,
                                   Display& display) {
  JobProgress progress;
  const auto end = FollowJob(client, id, options, [&](const v1::WatchJobResponse& update) {
    progress.Apply(update, absl::Now());
    display.Show(update);
  });
  display.Finish();
  GPIPE_RETURN_IF_ERROR(end.status());
  return progress;
}

absl::StatusOr<std::string> ForecastTable(ClusterClient& client, const v1::Job& job) {
  if (!job.has_forecast()) return std::string();
  GPIPE_ASSIGN_OR_RETURN(const v1::ListJobMetricsResponse metrics, client.ListJobMetrics(job.id(), kStepsToCompare));
  return RenderForecast(job.forecast(), {metrics.steps().begin(), metrics.steps().end()});
}

ExitCode ReportEnd(ClusterClient& client, const JobProgress& progress, const GlobalOptions& global, std::FILE* words) {
  const ExitCode code = ExitCodeOf(progress.job().state());
  if (global.json()) {
    Print(ToJson(progress.job(), JsonStyle::kDocument) + "\n");
  } else if (!global.quiet || code != ExitCode::kSucceeded) {
    absl::FPrintF(words, "%s\n", RenderEnd(progress));
    // Again, where they are not lost among the lines of hours.
    for (const std::string& warning : progress.warnings()) absl::FPrintF(words, "%s\n", RenderWarning(warning));
    // The job's end is known without it.
    const absl::StatusOr<std::string> forecast = ForecastTable(client, progress.job());
    if (forecast.ok()) absl::FPrintF(words, "%s", *forecast);
  }
  return code;
}

void Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace gpipe::client
