#include "client/cli/timeline_command.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/api/json.h"
#include "client/cli/attend.h"
#include "client/cli/timeline_drawing.h"
#include "client/cli/timeline_output.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

bool IsDrawing(const std::string& file) { return absl::EndsWithIgnoreCase(file, ".svg"); }
bool IsTrace(const std::string& file) { return absl::EndsWithIgnoreCase(file, ".json"); }

absl::Status CheckOutput(const std::string& file) {
  const bool is_word = file.empty() || file == "-" || file == "json" || file == "table";
  if (is_word || IsDrawing(file) || IsTrace(file)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--output ", file, ": must end in .svg (a drawing) or .json (a trace), or be - or json"));
}

}  // namespace

absl::Status WriteTimeline(const v1::StepTimeline& timeline, const std::string& file) {
  return WriteFileAtomically(file, IsDrawing(file) ? DrawTimeline(timeline) : TraceOf(timeline));
}

absl::StatusOr<ExitCode> JobTimeline(const GlobalOptions& global, const JobOptions& options) {
  const std::string& file = options.timeline;
  GPIPE_RETURN_IF_ERROR(CheckOutput(file));
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::StepTimeline timeline, client.GetTimeline(options.id, options.step));
  if (IsDrawing(file) || IsTrace(file)) {
    GPIPE_RETURN_IF_ERROR(WriteTimeline(timeline, file));
    if (!global.quiet) absl::FPrintF(stderr, "step %d: %s\n", timeline.step(), file);
  } else if (file == "-") {
    Print(TraceOf(timeline));
  } else if (file == "json" || (file.empty() && global.json())) {
    Print(ToJson(timeline, JsonStyle::kDocument) + "\n");
  } else {
    Print(RenderTimeline(timeline));
  }
  return ExitCode::kSucceeded;
}

}  // namespace gpipe::client
