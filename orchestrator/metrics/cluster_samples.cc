#include "orchestrator/metrics/cluster_samples.h"

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/gpu_health.h"
#include "common/string_view.h"
#include "orchestrator/jobs/job_state.h"
#include "orchestrator/metrics/definitions.h"

namespace gpipe::orchestrator {
namespace {

constexpr v1::Job::State kLiveStates[] = {v1::Job::STATE_QUEUED, v1::Job::STATE_STARTING, v1::Job::STATE_RUNNING,
                                          v1::Job::STATE_PAUSED};

using JobCounts = std::map<v1::Job::State, int64_t>;
using WorkerCounts = std::map<v1::Worker::State, int64_t>;

JobCounts CountByState(const std::vector<LiveJob*>& jobs) {
  JobCounts counts;
  for (const v1::Job::State state : kLiveStates) counts[state] = 0;
  for (const LiveJob* job : jobs) ++counts[job->job().state()];
  return counts;
}

WorkerCounts CountByState(const std::vector<WorkerEntry*>& workers) {
  WorkerCounts counts;
  for (int state = v1::Worker::State_MIN; state <= v1::Worker::State_MAX; ++state) {
    const bool real = v1::Worker::State_IsValid(state) && state != v1::Worker::STATE_UNSPECIFIED;
    if (real) counts[static_cast<v1::Worker::State>(state)] = 0;
  }
  for (const WorkerEntry* worker : workers) {
    if (!worker->left()) ++counts[worker->state];
  }
  return counts;
}

void AddStages(const v1::Job& job, metrics::Samples& samples) {
  const v1::StepMetrics& step = job.last_step();
  const int stages = std::min(job.stage_worker_size(), step.stage_busy_size());
  for (int stage = 0; stage < stages; ++stage) {
    const int worker = job.stage_worker(stage);
    if (worker < 0 || worker >= job.workers_size()) continue;
    const std::vector<std::string> labels = {job.id(), absl::StrCat(stage), job.workers(worker)};
    samples.Add(metric::kStageBusy, step.stage_busy(stage), labels);
    if (stage >= step.stage_peak_saved_bytes_size()) continue;
    samples.Add(metric::kStageSaved, static_cast<double>(step.stage_peak_saved_bytes(stage)), labels);
  }
}

void AddLastStep(const v1::Job& job, metrics::Samples& samples) {
  const v1::StepMetrics& step = job.last_step();
  if (step.has_loss()) samples.Add(metric::kJobLoss, step.loss(), {job.id()});
  samples.Add(metric::kJobStepSeconds, step.step_seconds(), {job.id()});
  samples.Add(metric::kJobSamplesPerSecond, step.samples_per_second(), {job.id()});
  samples.Add(metric::kBubble, step.bubble_share(), {job.id()});
  samples.Add(metric::kDataWait, step.data_wait_share(), {job.id()});
  AddStages(job, samples);
}

void AddPlacedJob(const LiveJob& live, metrics::Samples& samples) {
  const v1::Job& job = live.job();
  samples.Add(metric::kJobInfo, 1, {job.id(), job.spec().name(), std::string(StateName(job.state()))});
  samples.Add(metric::kJobAttempt, job.attempt(), {job.id()});
  samples.Add(metric::kJobRestarts, job.restarts(), {job.id()});
  samples.Add(metric::kJobRoundsDone, static_cast<double>(RoundsDone(live)), {job.id()});
  samples.Add(metric::kJobRounds, static_cast<double>(job.rounds_total()), {job.id()});
  samples.Add(metric::kJobStepsDone, static_cast<double>(job.steps_done()), {job.id()});
  samples.Add(metric::kJobSteps, static_cast<double>(job.steps_total()), {job.id()});
  if (job.has_forecast()) samples.Add(metric::kJobForecastSeconds, job.forecast().step_seconds(), {job.id()});
  if (job.has_last_step()) AddLastStep(job, samples);
}

// What a driver does not say is 0, and left out.
void AddKnown(const metrics::Definition& definition, double value, const std::string& worker,
              metrics::Samples& samples) {
  if (value > 0) samples.Add(definition, value, {worker});
}

void AddGpu(const v1::GpuHealth& gpu, const std::string& worker, metrics::Samples& samples) {
  AddKnown(metric::kGpuTemperature, gpu.temperature_celsius(), worker, samples);
  AddKnown(metric::kGpuPower, gpu.power_watts(), worker, samples);
  AddKnown(metric::kGpuClock, gpu.clock_mhz() * 1e6, worker, samples);
  for (const std::string_view why : kGpuSlowdowns) {
    samples.Add(metric::kGpuSlowed, IsSlowedBy(gpu, why) ? 1 : 0, {worker, std::string(why)});
  }
  samples.Add(metric::kGpuErrors, static_cast<double>(gpu.uncorrected_errors()), {worker});
}

void AddDevice(const WorkerEntry& worker, metrics::Samples& samples) {
  if (worker.use.process_bytes() == 0) return;  // It has said nothing of it yet.
  if (worker.use.utilization() >= 0) samples.Add(metric::kDeviceUtilization, worker.use.utilization(), {worker.name()});
  AddKnown(metric::kGpuMemory, static_cast<double>(worker.use.device_used_bytes()), worker.name(), samples);
  if (worker.use.has_gpu()) AddGpu(worker.use.gpu(), worker.name(), samples);
}

std::string DescribeJob(const LiveJob& live) {
  const v1::Job& job = live.job();
  return absl::StrCat("  ", job.id(), " ", AbslView(StateName(job.state())), ", attempt ", job.attempt(), ", ",
                      RoundsDone(live), " of ", job.rounds_total(), " mini-batches\n");
}

}  // namespace

void AddJobs(JobBook& book, const JobCounters& counters, absl::Time now, metrics::Samples& samples) {
  const std::vector<LiveJob*> jobs = book.All();
  const JobCounts counts = CountByState(jobs);
  for (const auto& [state, count] : counts) {
    samples.Add(metric::kJobs, static_cast<double>(count), {std::string(StateName(state))});
  }
  samples.Add(metric::kQueueDepth, static_cast<double>(counts.at(v1::Job::STATE_QUEUED)));
  absl::Duration longest = absl::ZeroDuration();
  size_t watchers = 0;
  for (const LiveJob* job : jobs) {
    watchers += job->watchers.size();
    if (job->job().state() == v1::Job::STATE_QUEUED) {
      longest = std::max(longest, now - counters.QueuedSince(job->job()));
    } else {
      AddPlacedJob(*job, samples);
    }
  }
  samples.Add(metric::kQueueOldest, absl::ToDoubleSeconds(longest));
  samples.Add(metric::kWatchers, static_cast<double>(watchers));
}

void AddWorkers(WorkerRegistry& registry, absl::Time now, metrics::Samples& samples) {
  const std::vector<WorkerEntry*> workers = registry.All();
  for (const auto& [state, count] : CountByState(workers)) {
    samples.Add(metric::kWorkers, static_cast<double>(count), {std::string(StateName(state))});
  }
  for (const WorkerEntry* worker : workers) {
    if (worker->left()) continue;
    samples.Add(metric::kWorkerUp, worker->connected() ? 1 : 0, {worker->name()});
    if (!worker->connected()) continue;
    samples.Add(metric::kHeartbeatAge, absl::ToDoubleSeconds(now - worker->last_heard), {worker->name()});
    AddDevice(*worker, samples);
  }
}

std::string DescribeJobs(JobBook& book) {
  const std::vector<LiveJob*> jobs = book.All();
  std::string text = "jobs";
  for (const auto& [state, count] : CountByState(jobs))
    absl::StrAppend(&text, " ", AbslView(StateName(state)), " ", count);
  absl::StrAppend(&text, "\n");
  for (const LiveJob* job : jobs) {
    if (job->job().state() != v1::Job::STATE_QUEUED) absl::StrAppend(&text, DescribeJob(*job));
  }
  return text;
}

std::string DescribeWorkers(WorkerRegistry& registry) {
  std::string text = "workers";
  for (const auto& [state, count] : CountByState(registry.All())) {
    if (count > 0) absl::StrAppend(&text, " ", AbslView(StateName(state)), " ", count);
  }
  return text + "\n";
}

}  // namespace gpipe::orchestrator
