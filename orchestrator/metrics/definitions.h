#ifndef GPIPE_ORCHESTRATOR_METRICS_DEFINITIONS_H_
#define GPIPE_ORCHESTRATOR_METRICS_DEFINITIONS_H_

#include <vector>

#include "common/metrics/definition.h"

// What the orchestrator exports; docs/metrics.md is the same in words. `job_id`: only jobs that are on workers, so
// there are no more of them than workers; `worker`: those that are connected, and as many lost ones as WorkerRegistry
// keeps.
namespace gpipe::orchestrator::metric {

using metrics::Definition;
using prometheus::MetricType;

// Jobs.
inline const Definition kJobs = {"gpipe_jobs", MetricType::Gauge, {"state"}, "Jobs that are not over, by state."};
inline const Definition kSubmitted = {"gpipe_job_submit_total", MetricType::Counter, {}, "Jobs that were accepted."};
inline const Definition kEnded = {
    "gpipe_job_end_total", MetricType::Counter, {"state"}, "Jobs that came to an end, by their last state."};
inline const Definition kFailures = {
    "gpipe_job_failures_total", MetricType::Counter, {"code"}, "Jobs that failed, by the code of their failure."};
inline const Definition kRestarts = {"gpipe_job_restarts_total",
                                     MetricType::Counter,
                                     {"reason"},
                                     "Attempts that ended early and whose job queued again, by what ended them."};
inline const Definition kQueueDepth = {"gpipe_queue_depth", MetricType::Gauge, {}, "Jobs that wait for workers."};
inline const Definition kQueueOldest = {"gpipe_queue_oldest_seconds",
                                        MetricType::Gauge,
                                        {},
                                        "For how long the one that waits longest has waited; 0: none."};
inline const Definition kQueueWait = {
    "gpipe_queue_wait_seconds", MetricType::Histogram, {}, "How long jobs had waited when they got their workers."};

// Steps of all jobs together.
inline const Definition kSteps = {
    "gpipe_steps_total", MetricType::Counter, {}, "Training steps and mini-batches of inference that were done."};
inline const Definition kSamples = {"gpipe_samples_total", MetricType::Counter, {}, "Samples of those."};
inline const Definition kStepDuration = {
    "gpipe_step_duration_seconds", MetricType::Histogram, {}, "How long they took, on the slowest worker."};

// Each job that is on workers; of its newest step, where it says nothing else.
inline const Definition kJobInfo = {
    "gpipe_job_info", MetricType::Gauge, {"job_id", "name", "state"}, "Always 1; the job's name and state."};
inline const Definition kJobAttempt = {"gpipe_job_attempt", MetricType::Gauge, {"job_id"}, "Its attempt, from 1."};
inline const Definition kJobRestarts = {
    "gpipe_job_restarts", MetricType::Gauge, {"job_id"}, "How often it ran again by itself."};
inline const Definition kJobRoundsDone = {
    "gpipe_job_rounds_done", MetricType::Gauge, {"job_id"}, "Mini-batches that its attempt has completed."};
inline const Definition kJobRounds = {
    "gpipe_job_rounds", MetricType::Gauge, {"job_id"}, "Mini-batches that its attempt has in all."};
inline const Definition kJobStepsDone = {
    "gpipe_job_steps_done", MetricType::Gauge, {"job_id"}, "Training steps that it has done, over all attempts."};
inline const Definition kJobSteps = {
    "gpipe_job_steps", MetricType::Gauge, {"job_id"}, "Training steps that it has in all; 0 in inference."};
inline const Definition kJobLoss = {"gpipe_job_loss", MetricType::Gauge, {"job_id"}, "Its loss."};
inline const Definition kJobStepSeconds = {
    "gpipe_job_step_seconds", MetricType::Gauge, {"job_id"}, "How long its step took."};
inline const Definition kJobForecastSeconds = {"gpipe_job_forecast_step_seconds",
                                               MetricType::Gauge,
                                               {"job_id"},
                                               "How long it should take by the plan's forecast, where there is one."};
inline const Definition kJobSamplesPerSecond = {
    "gpipe_job_samples_per_second", MetricType::Gauge, {"job_id"}, "Its samples per second."};
inline const Definition kBubble = {
    "gpipe_bubble_ratio", MetricType::Gauge, {"job_id"}, "Share of its workers' time in which they computed nothing."};
inline const Definition kDataWait = {"gpipe_job_data_wait_ratio",
                                     MetricType::Gauge,
                                     {"job_id"},
                                     "Share of its step in which a worker waited for data to be read."};
inline const Definition kStageBusy = {"gpipe_job_stage_busy_ratio",
                                      MetricType::Gauge,
                                      {"job_id", "stage", "worker"},
                                      "Share of its step in which the stage computed."};
inline const Definition kStageSaved = {"gpipe_job_stage_saved_bytes",
                                       MetricType::Gauge,
                                       {"job_id", "stage", "worker"},
                                       "Most activations that the stage had saved for the backward pass."};

// Workers.
inline const Definition kWorkers = {"gpipe_workers", MetricType::Gauge, {"state"}, "Workers that are known, by state."};
inline const Definition kWorkerUp = {
    "gpipe_worker_up", MetricType::Gauge, {"worker"}, "1: it is connected; 0: it is lost. One that left is not here."};
inline const Definition kHeartbeatAge = {"gpipe_heartbeat_age_seconds",
                                         MetricType::Gauge,
                                         {"worker"},
                                         "Since when nothing was heard of a worker that is connected."};
// Of their devices, as of their last heartbeats; but for the utilization, of GPUs only, and what their drivers say.
inline const Definition kDeviceUtilization = {
    "gpipe_worker_utilization_ratio",
    MetricType::Gauge,
    {"worker"},
    "Share of the last second in which the worker's GPU ran a kernel; on CPUs of all cores that it used."};
inline const Definition kGpuMemory = {"gpipe_worker_gpu_memory_used_bytes",
                                      MetricType::Gauge,
                                      {"worker"},
                                      "Memory of the worker's GPU in use, by all programs."};
inline const Definition kGpuTemperature = {
    "gpipe_worker_gpu_temperature_celsius", MetricType::Gauge, {"worker"}, "Temperature of the worker's GPU."};
inline const Definition kGpuPower = {
    "gpipe_worker_gpu_power_watts", MetricType::Gauge, {"worker"}, "What the worker's GPU draws."};
inline const Definition kGpuClock = {
    "gpipe_worker_gpu_clock_hertz", MetricType::Gauge, {"worker"}, "Clock of its multiprocessors."};
inline const Definition kGpuSlowed = {"gpipe_worker_gpu_slowed",
                                      MetricType::Gauge,
                                      {"worker", "reason"},
                                      "1: the clock is lower than it could be, for power, heat, or by the hardware "
                                      "itself, which brakes by half or more."};
inline const Definition kGpuErrors = {"gpipe_worker_gpu_uncorrected_errors_total",
                                      MetricType::Counter,
                                      {"worker"},
                                      "Errors of the GPU's memory that could not be corrected, since its driver was "
                                      "loaded."};

// The orchestrator itself.
inline const Definition kLoopUp = {
    "gpipe_event_loop_up", MetricType::Gauge, {}, "Whether the event loop answered the scrape; else most is missing."};
inline const Definition kLoopDelay = {
    "gpipe_event_loop_delay_seconds", MetricType::Gauge, {}, "How long the scrape waited for the event loop."};
inline const Definition kCommit = {"gpipe_database_commit_seconds",
                                   MetricType::Histogram,
                                   {},
                                   "How long the database took to store a batch of changes."};
inline const Definition kDatabaseBytes = {
    "gpipe_database_bytes", MetricType::Gauge, {}, "Size of the database and its log."};
inline const Definition kDiskFree = {
    "gpipe_disk_free_bytes", MetricType::Gauge, {}, "Free on the disk of the state folder."};
inline const Definition kDiskSize = {
    "gpipe_disk_size_bytes", MetricType::Gauge, {}, "Size of the disk of the state folder."};
inline const Definition kDiskFull = {
    "gpipe_disk_full", MetricType::Gauge, {}, "1: there is so little room that the orchestrator is read-only."};
inline const Definition kWatchers = {
    "gpipe_watchers", MetricType::Gauge, {}, "Clients that watch jobs which are not over."};
inline const Definition kCalls = {"gpipe_grpc_calls_total",
                                  MetricType::Counter,
                                  {"method", "code"},
                                  "Calls that ended, by gRPC's code; method=\"other\": of methods that there are not."};
inline const Definition kRejected = {"gpipe_rejected_total",
                                     MetricType::Counter,
                                     {"reason"},
                                     "Calls that were refused by a limit (RESOURCE_EXHAUSTED), by the error's reason."};
inline const Definition kConnectionsRefused = {"gpipe_connections_refused_total",
                                               MetricType::Counter,
                                               {},
                                               "Connections that were closed at once, because there were too many."};

// All of the above, and those of the process.
std::vector<Definition> All();

}  // namespace gpipe::orchestrator::metric

#endif  // GPIPE_ORCHESTRATOR_METRICS_DEFINITIONS_H_
