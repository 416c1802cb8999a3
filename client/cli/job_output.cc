#include "client/cli/job_output.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/api/job_states.h"
#include "client/cli/format.h"
#include "common/spec/client_data.h"

namespace gpipe::client {
namespace {

bool Trains(const v1::Job& job) { return job.spec().has_train(); }

// A client asks for its rounds, and nobody else knows how many there will be.
bool IsAsked(const v1::Job& job) { return spec::HasClientData(job.spec()); }

std::string Progress(const v1::Job& job) {
  if (IsAsked(job)) return absl::StrCat(job.rounds_done(), " asked");
  const int64_t done = Trains(job) ? job.steps_done() : job.rounds_done();
  const int64_t total = Trains(job) ? job.steps_total() : job.rounds_total();
  return total > 0 ? absl::StrCat(done, "/", total) : "";
}

std::string LossOf(const v1::Job& job) { return job.last_step().has_loss() ? FormatLoss(job.last_step().loss()) : ""; }

std::string RateOf(const v1::Job& job) {
  return job.has_last_step() ? absl::StrFormat("%.0f samples/s", job.last_step().samples_per_second()) : "";
}

// At the pace of the newest step.
std::string TimeLeft(const v1::Job& job) {
  if (job.state() != v1::Job::STATE_RUNNING || !job.has_last_step() || IsAsked(job)) return "";
  const int64_t left = Trains(job) ? job.steps_total() - job.steps_done() : job.rounds_total() - job.rounds_done();
  return FormatClock(static_cast<double>(left) * absl::Seconds(job.last_step().step_seconds()));
}

void AddFailure(std::string& text, const char* key, const v1::Failure& failure) {
  AddField(text, key, failure.code());
  if (!failure.worker().empty())
    AddField(text, "  worker", absl::StrCat(failure.worker(), ", stage ", failure.stage()));
  AddField(text, "  doing", failure.doing());
  if (failure.step() > 0) AddField(text, "  step", absl::StrCat(failure.step()));
  AddField(text, "  message", failure.message());
  for (const std::string& consequence : failure.consequences()) AddField(text, "  then", consequence);
}

void AddRestarts(std::string& text, const v1::Job& job) {
  if (job.restarts() > 0) {
    AddField(text, "restarts", absl::StrCat(job.restarts(), " of ", job.spec().max_restarts()));
  }
  if (job.has_restart_time()) AddField(text, "not before", FormatTime(job.restart_time()));
  if (job.has_last_failure()) AddFailure(text, "restarted", job.last_failure());
}

std::string StagesTable(const v1::Job& job) {
  Table table({">STAGE", "WORKER", ">LAYERS", "DOING"});
  for (int stage = 0; stage < job.stage_worker_size(); ++stage) {
    const int worker = job.stage_worker(stage);
    const bool known = worker >= 0 && worker < job.activities_size() && !IsTerminal(job.state());
    table.Add({absl::StrCat(stage), worker >= 0 && worker < job.workers_size() ? job.workers(worker) : "?",
               stage < job.balance_size() ? absl::StrCat(job.balance(stage)) : "",
               known ? FormatActivity(job.activities(worker)) : ""});
  }
  return table.Render();
}

// REQUIRES: there are steps.
template <typename ValueOf>
auto Median(const std::vector<v1::StepMetrics>& steps, const ValueOf& value_of) {
  std::vector<decltype(value_of(steps.front()))> values;
  for (const v1::StepMetrics& step : steps) values.push_back(value_of(step));
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Steps are often shorter than what FormatSeconds tells apart.
std::string FormatStep(double seconds) {
  return seconds < 1 ? absl::StrFormat("%.1f ms", seconds * 1000) : FormatSeconds(absl::Seconds(seconds));
}

// The activations that micro-batches keep for their backward pass.
std::string KeptOf(v1::Checkpoint checkpoint) {
  switch (checkpoint) {
    case v1::CHECKPOINT_ALWAYS:
      return "no activations (checkpoint: always)";
    case v1::CHECKPOINT_EXCEPT_LAST:
      return "the last micro-batch's activations (checkpoint: except_last)";
    case v1::CHECKPOINT_NEVER:
      return "all activations (checkpoint: never)";
    default:
      return "";
  }
}

}  // namespace

std::string RenderJobs(const v1::ListJobsResponse& jobs) {
  // Where nobody has to say who he is there is nothing to tell.
  const bool named = std::any_of(jobs.jobs().begin(), jobs.jobs().end(),
                                 [](const v1::Job& job) { return !job.submitted_by().empty(); });
  std::vector<std::string> header = {"ID", "STATE", ">DONE", ">LOSS", ">LEFT", "WORKERS", "CREATED", "REASON"};
  if (named) header.insert(header.begin() + 1, "BY");
  Table table(header);
  for (const v1::Job& job : jobs.jobs()) {
    std::vector<std::string> row = {job.id(),
                                    StateName(job.state()),
                                    Progress(job),
                                    LossOf(job),
                                    TimeLeft(job),
                                    absl::StrJoin(job.workers(), ","),
                                    FormatTime(job.create_time()),
                                    FirstLine(job.reason())};
    if (named) row.insert(row.begin() + 1, job.submitted_by());
    table.Add(std::move(row));
  }
  return table.Render();
}

std::string RenderJob(const v1::Job& job) {
  std::string text;
  AddField(text, "id", job.id());
  AddField(text, "state", StateName(job.state()));
  AddField(text, "reason", job.reason());
  if (job.has_failure()) AddFailure(text, "failure", job.failure());
  AddField(text, Trains(job) ? "steps" : "batches", Progress(job));
  AddField(text, "loss", LossOf(job));
  AddField(text, "rate", RateOf(job));
  AddField(text, "left", TimeLeft(job));
  if (job.checkpoint_step() > 0) AddField(text, "checkpoint", absl::StrCat("step ", job.checkpoint_step()));
  AddField(text, "attempt", job.attempt() > 0 ? absl::StrCat(job.attempt()) : "");
  AddRestarts(text, job);
  if (Trains(job)) AddField(text, "kept", KeptOf(job.checkpoint()));
  AddField(text, "created", FormatTime(job.create_time()));
  AddField(text, "by", job.submitted_by());
  AddField(text, "started", FormatTime(job.start_time()));
  AddField(text, "ended", FormatTime(job.end_time()));
  for (const v1::ResultFile& file : job.results()) {
    AddField(text, "result", absl::StrCat(file.path(), "  ", FormatBytes(file.artifact().size())));
  }
  if (job.stage_worker_size() > 0) absl::StrAppend(&text, "\n", StagesTable(job));
  return text;
}

std::string RenderForecast(const v1::Forecast& forecast, std::vector<v1::StepMetrics> steps) {
  if (steps.size() > 1) steps.erase(steps.begin());
  std::erase_if(steps, [&](const v1::StepMetrics& step) { return step.stage_busy_size() != forecast.stages_size(); });
  const auto measured = [&](auto value_of, auto format) {
    return steps.empty() ? std::string() : format(Median(steps, value_of));
  };
  std::string text = absl::StrCat("predicted a step of ", FormatStep(forecast.step_seconds()), ", bubble ",
                                  FormatPercent(forecast.bubble_share()));
  if (!steps.empty()) {
    absl::StrAppend(&text, "; measured ",
                    FormatStep(Median(steps, [](const v1::StepMetrics& step) { return step.step_seconds(); })), ", ",
                    FormatPercent(Median(steps, [](const v1::StepMetrics& step) { return step.bubble_share(); })));
  }
  Table table({">STAGE", ">BUSY", ">MEASURED", ">PEAK SAVED", ">MEASURED"});
  for (int i = 0; i < forecast.stages_size(); ++i) {
    const auto busy = [i](const v1::StepMetrics& step) { return step.stage_busy(i); };
    const auto saved = [i](const v1::StepMetrics& step) {
      return i < step.stage_peak_saved_bytes_size() ? step.stage_peak_saved_bytes(i) : 0;
    };
    table.Add({absl::StrCat(i), FormatPercent(forecast.stages(i).busy_share()), measured(busy, FormatPercent),
               FormatBytes(forecast.stages(i).peak_saved_bytes()), measured(saved, FormatBytes)});
  }
  return absl::StrCat(text, "\n", table.Render());
}

}  // namespace gpipe::client
