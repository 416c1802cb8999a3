#ifndef GPIPE_WORKER_MONITOR_DEFINITIONS_H_
#define GPIPE_WORKER_MONITOR_DEFINITIONS_H_

#include <vector>

#include "common/metrics/definition.h"

// What a worker exports; docs/metrics.md is the same in words. `stage`: those that this worker has had.
namespace gpipe::worker::metric {

using metrics::Definition;
using prometheus::MetricType;

// The worker.
inline const Definition kInfo = {"gpipe_worker_info",
                                 MetricType::Gauge,
                                 {"worker", "device", "device_name"},
                                 "Always 1; the worker's name and what it computes on."};
inline const Definition kSoftware = {"gpipe_worker_software_info",
                                     MetricType::Gauge,
                                     {"name", "version"},
                                     "Always 1; what it computes with: torch, on a GPU driver, cuda, cudnn, nccl."};
inline const Definition kConnected = {
    "gpipe_worker_connected", MetricType::Gauge, {}, "Whether it has a session with the orchestrator."};
inline const Definition kPhase = {
    "gpipe_worker_phase", MetricType::Gauge, {"phase"}, "1 for what it is doing: IDLE, FORWARD, CHECKPOINT, ..."};
inline const Definition kFailures = {"gpipe_worker_failures_total",
                                     MetricType::Counter,
                                     {"code", "consequence"},
                                     "Attempts that failed here; consequence=\"true\": because of another worker."};
inline const Definition kNcclErrors = {
    "gpipe_nccl_errors_total", MetricType::Counter, {"code"}, "Failures of NCCL, own ones and consequences."};
inline const Definition kGpuMemory = {
    "gpipe_gpu_memory_used_bytes", MetricType::Gauge, {}, "Memory of its GPU in use, by all programs; not on CPUs."};
inline const Definition kUtilization = {
    "gpipe_device_utilization_ratio",
    MetricType::Gauge,
    {},
    "Share of the last second in which its GPU ran a kernel; on CPUs of all cores that it used."};
// Of a GPU, where its driver says it.
inline const Definition kGpuTemperature = {
    "gpipe_gpu_temperature_celsius", MetricType::Gauge, {}, "Temperature of its GPU."};
inline const Definition kGpuPower = {"gpipe_gpu_power_watts", MetricType::Gauge, {}, "What its GPU draws."};
inline const Definition kGpuClock = {
    "gpipe_gpu_clock_hertz", MetricType::Gauge, {}, "Clock of its GPU's multiprocessors."};
inline const Definition kGpuMaxClock = {
    "gpipe_gpu_max_clock_hertz", MetricType::Gauge, {}, "The highest that this clock can be."};
inline const Definition kGpuSlowed = {"gpipe_gpu_slowed",
                                      MetricType::Gauge,
                                      {"reason"},
                                      "1: the clock is lower than it could be, for power, heat, or by the hardware "
                                      "itself, which brakes by half or more."};
inline const Definition kGpuErrors = {"gpipe_gpu_uncorrected_errors_total",
                                      MetricType::Counter,
                                      {},
                                      "Errors of its GPU's memory that could not be corrected, since the driver was "
                                      "loaded."};

// What it computes, in rounds: the mini-batches of training, evaluation and inference.
inline const Definition kRoundDuration = {
    "gpipe_round_duration_seconds", MetricType::Histogram, {}, "How long mini-batches took on this worker."};
inline const Definition kCompute = {"gpipe_stage_compute_seconds_total",
                                    MetricType::Counter,
                                    {"stage", "phase"},
                                    "Time that the stage computed, by phase: forward, recompute, backward, optimizer."};
inline const Definition kIdle = {"gpipe_stage_idle_seconds_total",
                                 MetricType::Counter,
                                 {"stage"},
                                 "Time of mini-batches in which the stage's worker computed nothing: the bubble."};
inline const Definition kSaved = {"gpipe_stage_saved_bytes",
                                  MetricType::Gauge,
                                  {"stage"},
                                  "Most activations that it had saved in the last mini-batch."};
inline const Definition kDataWait = {
    "gpipe_data_wait_seconds_total", MetricType::Counter, {}, "Time that it waited for data to be read."};
inline const Definition kCommBytes = {"gpipe_comm_bytes_total",
                                      MetricType::Counter,
                                      {"direction"},
                                      "Bytes of tensors exchanged with other workers: sent, received."};
inline const Definition kCommSeconds = {
    "gpipe_comm_seconds_total",
    MetricType::Counter,
    {},
    "Time in which nothing could be computed, because a transfer with another worker was not over."};

// What it saves.
inline const Definition kCheckpointSeconds = {"gpipe_checkpoint_seconds",
                                              MetricType::Histogram,
                                              {},
                                              "How long its part of a checkpoint took, from its clock cycle until it "
                                              "was handed over; the job trains on meanwhile."};
inline const Definition kCheckpointBytes = {"gpipe_checkpoint_bytes_total", MetricType::Counter, {}, "Bytes of those."};

// All of the above, and those of the process.
std::vector<Definition> All();

}  // namespace gpipe::worker::metric

#endif  // GPIPE_WORKER_MONITOR_DEFINITIONS_H_
