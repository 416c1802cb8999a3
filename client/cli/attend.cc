#include "client/cli/attend.h"

#include "absl/strings/str_format.h"
#include "client/api/json.h"
#include "client/cli/render.h"
#include "common/status_macros.h"

namespace gpipe::client {

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

ExitCode ReportEnd(const JobProgress& progress, const GlobalOptions& global, std::FILE* words) {
  const ExitCode code = ExitCodeOf(progress.job().state());
  if (global.json()) {
    Print(ToJson(progress.job(), JsonStyle::kDocument) + "\n");
  } else if (!global.quiet || code != ExitCode::kSucceeded) {
    absl::FPrintF(words, "%s\n", RenderEnd(progress));
  }
  return code;
}

void Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace gpipe::client
