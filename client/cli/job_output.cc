#include "client/cli/job_output.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/api/job_states.h"
#include "client/cli/format.h"

namespace gpipe::client {
namespace {

bool Trains(const v1::Job& job) { return job.spec().has_train(); }

std::string Progress(const v1::Job& job) {
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
  if (job.state() != v1::Job::STATE_RUNNING || !job.has_last_step()) return "";
  const int64_t left = Trains(job) ? job.steps_total() - job.steps_done() : job.rounds_total() - job.rounds_done();
  return FormatClock(static_cast<double>(left) * absl::Seconds(job.last_step().step_seconds()));
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// `key` padded, then the value; nothing when the value is empty.
void AddField(std::string& text, const char* key, const std::string& value) {
  if (!value.empty()) absl::StrAppend(&text, absl::StrFormat("%-12s %s\n", key, value));
}

void AddFailure(std::string& text, const v1::Failure& failure) {
  AddField(text, "failure", failure.code());
  if (!failure.worker().empty())
    AddField(text, "  worker", absl::StrCat(failure.worker(), ", stage ", failure.stage()));
  AddField(text, "  doing", failure.doing());
  AddField(text, "  message", failure.message());
  for (const std::string& consequence : failure.consequences()) AddField(text, "  then", consequence);
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

std::string StateOf(const v1::Worker& worker) {
  const std::string& name = v1::Worker::State_Name(worker.state());
  return name.empty() ? absl::StrCat(worker.state()) : name.substr(sizeof("STATE_") - 1);
}

std::string DoingOf(const v1::Worker& worker) {
  if (!worker.reason().empty()) return FirstLine(worker.reason());
  return worker.attempt().job().empty() ? "" : FormatActivity(worker.activity());
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

}  // namespace

std::string RenderJobs(const v1::ListJobsResponse& jobs) {
  Table table({"ID", "STATE", ">DONE", ">LOSS", ">LEFT", "WORKERS", "CREATED", "REASON"});
  for (const v1::Job& job : jobs.jobs()) {
    table.Add({job.id(), StateName(job.state()), Progress(job), LossOf(job), TimeLeft(job),
               absl::StrJoin(job.workers(), ","), FormatTime(job.create_time()), FirstLine(job.reason())});
  }
  return table.Render();
}

std::string RenderJob(const v1::Job& job) {
  std::string text;
  AddField(text, "id", job.id());
  AddField(text, "state", StateName(job.state()));
  AddField(text, "reason", job.reason());
  if (job.has_failure()) AddFailure(text, job.failure());
  AddField(text, Trains(job) ? "steps" : "batches", Progress(job));
  AddField(text, "loss", LossOf(job));
  AddField(text, "rate", RateOf(job));
  AddField(text, "left", TimeLeft(job));
  if (job.checkpoint_step() > 0) AddField(text, "checkpoint", absl::StrCat("step ", job.checkpoint_step()));
  AddField(text, "attempt", job.attempt() > 0 ? absl::StrCat(job.attempt()) : "");
  AddField(text, "created", FormatTime(job.create_time()));
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

std::string RenderWorkers(const v1::ListWorkersResponse& workers) {
  Table table({"NAME", "STATE", "DEVICE", ">THREADS", ">MEMORY", "ADDRESS", "JOB", "DOING", ">HEARD"});
  for (const v1::Worker& worker : workers.workers()) {
    const v1::Hello& hello = worker.hello();
    const std::string device =
        absl::StrCat(hello.device(), hello.device_name().empty() ? "" : " ", hello.device_name());
    table.Add({worker.name(), StateOf(worker), device, absl::StrCat(hello.threads()), FormatBytes(hello.memory_bytes()),
               hello.data_address(), worker.attempt().job(), DoingOf(worker),
               absl::StrFormat("%.1f s ago", worker.heartbeat_age_seconds())});
  }
  return table.Render();
}

}  // namespace gpipe::client
