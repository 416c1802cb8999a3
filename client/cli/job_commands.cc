#include "client/cli/job_commands.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/api/job_states.h"
#include "client/api/json.h"
#include "client/api/results.h"
#include "client/api/submission.h"
#include "client/cli/attend.h"
#include "client/cli/describe.h"
#include "client/cli/interruption.h"
#include "client/cli/job_output.h"
#include "client/cli/render.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

ExitCode PrintJob(const v1::Job& job, const GlobalOptions& global) {
  Print(global.json() ? ToJson(job, JsonStyle::kDocument) + "\n" : RenderState(job) + "\n");
  return ExitCode::kSucceeded;
}

// Calls one of the methods that change a job, and prints the job.
absl::StatusOr<ExitCode> Change(absl::StatusOr<v1::Job> (ClusterClient::*change)(const std::string& id),
                                const GlobalOptions& global, const JobOptions& options) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::Job job, (client.*change)(options.id));
  return PrintJob(job, global);
}

void PrintDeleted(const std::string& id, const GlobalOptions& global) {
  v1::DeleteJobRequest deleted;
  deleted.set_id(id);
  Print(global.json() ? ToJson(deleted, JsonStyle::kLine) + "\n" : absl::StrCat("job ", id, " deleted\n"));
}

// All that went wrong, with the code of what did so first.
absl::Status Joined(const absl::Status& first, const absl::Status& next) {
  if (first.ok()) return next;
  return absl::Status(first.code(), absl::StrCat(first.message(), "\n", next.message()));
}

FollowOptions Following(const JobOptions& options) {
  FollowOptions follow;
  follow.cycles = options.cycles;
  follow.stages = options.stages;
  if (options.timeout_seconds > 0) follow.timeout = absl::Seconds(options.timeout_seconds);
  return follow;
}

absl::StatusOr<std::vector<v1::Job::State>> ParseStates(const std::vector<std::string>& names) {
  std::vector<v1::Job::State> states;
  for (const std::string& name : names) {
    v1::Job::State state;
    if (!v1::Job::State_Parse(absl::StrCat("STATE_", absl::AsciiStrToUpper(name)), &state)) {
      return absl::InvalidArgumentError(absl::StrCat("--state: there is no state '", name, "'"));
    }
    states.push_back(state);
  }
  return states;
}

// Prints a job's events in their order, each once.
class EventPrinter {
 public:
  EventPrinter(ClusterClient& client, const std::string& id, bool json) : client_(client), id_(id), json_(json) {}

  // There may be thousands of events: they are listed only where the stream has not brought all.
  absl::Status Apply(const v1::WatchJobResponse& update) {
    if (update.has_event()) {
      heard_ = true;
      if (update.event().sequence() > last_ + 1) return CatchUp();
      PrintNew(update.event());
    } else if (update.has_job()) {
      // Without an event since the last one, this is the first word of a stream, which may have been broken before.
      if (!std::exchange(heard_, false) || IsTerminal(update.job().state())) return CatchUp();
    }
    return absl::OkStatus();
  }
  absl::Status CatchUp() {
    GPIPE_ASSIGN_OR_RETURN(const v1::ListJobEventsResponse events, client_.ListJobEvents(id_));
    for (const v1::JobEvent& event : events.events()) PrintNew(event);
    return absl::OkStatus();
  }

 private:
  void PrintNew(const v1::JobEvent& event) {
    if (event.sequence() <= last_) return;
    last_ = event.sequence();
    Print(absl::StrCat(json_ ? ToJson(event, JsonStyle::kLine) : RenderEvent(event), "\n"));
  }

  ClusterClient& client_;
  const std::string& id_;
  const bool json_;
  int64_t last_ = 0;
  bool heard_ = false;  // An event since the stream's last word of the job.
};

absl::StatusOr<ExitCode> FollowLogs(ClusterClient& client, const GlobalOptions& global, const JobOptions& options) {
  EventPrinter printer(client, options.id, global.json());
  GPIPE_RETURN_IF_ERROR(printer.CatchUp());
  absl::Status printed;
  const auto on_update = [&](const v1::WatchJobResponse& update) { printed.Update(printer.Apply(update)); };
  GPIPE_RETURN_IF_ERROR(FollowJob(client, options.id, Following(options), on_update).status());
  GPIPE_RETURN_IF_ERROR(printed);
  return ExitCode::kSucceeded;
}

// Whoever stops watching must not think that he has stopped the job.
absl::Status Explain(const absl::Status& status, const Interruption& interruption, const std::string& id) {
  if (status.ok() || !interruption.happened()) return status;
  return absl::CancelledError(
      absl::StrCat("interrupted; the job goes on: gpipe job watch ", id, ", or end it with gpipe job cancel ", id));
}

absl::StatusOr<ExitCode> AttendAndReport(ClusterClient& client, const Interruption& interruption,
                                         const GlobalOptions& global, const JobOptions& options, DisplayKind kind,
                                         std::FILE* out) {
  const auto display = MakeDisplay(kind, out);
  const absl::StatusOr<JobProgress> progress = Attend(client, options.id, Following(options), *display);
  if (!progress.ok()) return Explain(progress.status(), interruption, options.id);
  return ReportEnd(client, *progress, global, out);
}

}  // namespace

absl::StatusOr<ExitCode> JobSubmit(const GlobalOptions& global, const JobOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const spec::SpecFile file, LoadSpec(options.spec));
  std::optional<Interruption> interruption;
  if (options.wait) interruption.emplace();
  ClusterClient client(global.client(interruption ? interruption->token() : std::stop_token()));
  GPIPE_ASSIGN_OR_RETURN(const v1::Job job, Submit(client, file, {options.resume, options.request_id}));
  if (!options.wait || !global.json()) {
    Print(global.json() ? ToJson(job, JsonStyle::kDocument) + "\n" : job.id() + "\n");
  }
  if (options.wait) {
    JobOptions waiting = options;
    waiting.id = job.id();
    const DisplayKind kind = global.quiet ? DisplayKind::kNone : LiveOrPlain(stderr);
    return AttendAndReport(client, *interruption, global, waiting, kind, stderr);
  }
  if (!global.quiet && !global.json()) absl::FPrintF(stderr, "follow it with: gpipe job watch %s\n", job.id());
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> JobList(const GlobalOptions& global, const JobOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const std::vector<v1::Job::State> states, ParseStates(options.states));
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::ListJobsResponse jobs, client.ListJobs(states, options.limit));
  Print(global.json() ? ToJson(jobs, JsonStyle::kDocument) + "\n" : RenderJobs(jobs));
  if (!jobs.next_page_token().empty() && !global.quiet) {
    absl::FPrintF(stderr, "the newest %d; there are more: --limit 0 lists all\n", jobs.jobs_size());
  }
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> JobGet(const GlobalOptions& global, const JobOptions& options) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::Job job, client.GetJob(options.id));
  if (global.json()) return PrintJob(job, global);
  GPIPE_ASSIGN_OR_RETURN(const std::string forecast, ForecastTable(client, job));
  Print(absl::StrCat(RenderJob(job), forecast.empty() ? "" : "\n", forecast));
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> JobDescribe(const GlobalOptions& global, const JobOptions& options) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::Job job, client.GetJob(options.id));
  GPIPE_ASSIGN_OR_RETURN(const v1::ListJobEventsResponse events, client.ListJobEvents(options.id));
  if (global.json()) {
    Print(absl::StrCat("{\"job\": ", ToJson(job, JsonStyle::kDocument),
                       ", \"history\": ", ToJson(events, JsonStyle::kDocument), "}\n"));
    return ExitCode::kSucceeded;
  }
  GPIPE_ASSIGN_OR_RETURN(const std::string forecast, ForecastTable(client, job));
  Print(RenderDescription(job, events, forecast));
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> JobWatch(const GlobalOptions& global, const JobOptions& options) {
  const Interruption interruption;
  ClusterClient client(global.client(interruption.token()));
  if (!global.json()) {
    const DisplayKind kind = options.cycles ? DisplayKind::kPlain : LiveOrPlain(stdout);
    return AttendAndReport(client, interruption, global, options, kind, stdout);
  }
  const auto display = MakeDisplay(DisplayKind::kJson, stdout);
  GPIPE_ASSIGN_OR_RETURN(const JobProgress progress, Attend(client, options.id, Following(options), *display));
  return ExitCodeOf(progress.job().state());
}

absl::StatusOr<ExitCode> JobWait(const GlobalOptions& global, const JobOptions& options) {
  const Interruption interruption;
  ClusterClient client(global.client(interruption.token()));
  return AttendAndReport(client, interruption, global, options, DisplayKind::kNone, stdout);
}

absl::StatusOr<ExitCode> JobCheckpoint(const GlobalOptions& global, const JobOptions& options) {
  const Interruption interruption;
  ClusterClient client(global.client(interruption.token()));
  GPIPE_ASSIGN_OR_RETURN(const v1::CheckpointJobResponse asked, client.CheckpointJob(options.id));
  const auto written = [&](const v1::Job& job) { return job.checkpoint_step() >= asked.step(); };
  FollowOptions follow = Following(options);
  follow.awaited = absl::StrCat("write the checkpoint of step ", asked.step());
  follow.until = [&](const v1::Job& job) { return written(job) || job.attempt() != asked.attempt(); };
  GPIPE_ASSIGN_OR_RETURN(const v1::Job job, FollowJob(client, options.id, follow, [](const v1::WatchJobResponse&) {}));
  if (!written(job)) {
    return absl::AbortedError(absl::StrCat("job ", job.id(), " is ", StateName(job.state()),
                                           ", and the checkpoint of step ", asked.step(), " was not written"));
  }
  Print(global.json() ? ToJson(job, JsonStyle::kDocument) + "\n" : absl::StrCat("step ", job.checkpoint_step(), "\n"));
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> JobPause(const GlobalOptions& global, const JobOptions& options) {
  return Change(&ClusterClient::PauseJob, global, options);
}

absl::StatusOr<ExitCode> JobResume(const GlobalOptions& global, const JobOptions& options) {
  return Change(&ClusterClient::ResumeJob, global, options);
}

absl::StatusOr<ExitCode> JobCancel(const GlobalOptions& global, const JobOptions& options) {
  return Change(&ClusterClient::CancelJob, global, options);
}

absl::StatusOr<ExitCode> JobDelete(const GlobalOptions& global, const JobOptions& options) {
  ClusterClient client(global.client());
  absl::Status failed;
  for (const std::string& id : options.ids) {
    const absl::Status deleted = client.DeleteJob(id);
    if (deleted.ok()) {
      PrintDeleted(id, global);
    } else {
      failed = Joined(failed, absl::Status(deleted.code(), absl::StrCat("job ", id, ": ", deleted.message())));
    }
    if (absl::IsUnavailable(deleted)) break;  // Nor would the next one be reached.
  }
  GPIPE_RETURN_IF_ERROR(failed);
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> JobPull(const GlobalOptions& global, const JobOptions& options) {
  ClusterClient client(global.client());
  GPIPE_ASSIGN_OR_RETURN(const v1::Job job, client.GetJob(options.id));
  const std::string folder = options.output.empty() ? job.spec().name() : options.output;
  GPIPE_RETURN_IF_ERROR(PullResults(client, job, folder));
  Print(global.json() ? ToJson(job, JsonStyle::kDocument) + "\n" : folder + "\n");
  return ExitCode::kSucceeded;
}

absl::StatusOr<ExitCode> JobLogs(const GlobalOptions& global, const JobOptions& options) {
  ClusterClient client(global.client());
  if (options.follow) return FollowLogs(client, global, options);
  GPIPE_ASSIGN_OR_RETURN(const v1::ListJobEventsResponse events, client.ListJobEvents(options.id));
  if (global.json()) {
    Print(ToJson(events, JsonStyle::kDocument) + "\n");
    return ExitCode::kSucceeded;
  }
  for (const v1::JobEvent& event : events.events()) Print(RenderEvent(event) + "\n");
  return ExitCode::kSucceeded;
}

}  // namespace gpipe::client
