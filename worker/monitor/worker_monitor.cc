#include "worker/monitor/worker_monitor.h"

#include <iterator>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/attempt_id.h"
#include "common/gpu_health.h"
#include "common/metrics/process.h"
#include "common/metrics/samples.h"
#include "worker/monitor/definitions.h"

namespace gpipe::worker {
namespace {

std::string NameOf(v1::Phase phase) {
  constexpr std::string_view kPrefix = "PHASE_";
  const std::string& name = v1::Phase_Name(phase);
  return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : "UNKNOWN";
}

void AddPhases(v1::Phase now, metrics::Samples& samples) {
  for (int phase = v1::PHASE_UNSPECIFIED + 1; phase <= v1::Phase_MAX; ++phase) {
    if (!v1::Phase_IsValid(phase)) continue;
    samples.Add(metric::kPhase, phase == now ? 1 : 0, {NameOf(static_cast<v1::Phase>(phase))});
  }
}

// What a driver does not say is 0, and left out.
void AddKnown(const metrics::Definition& definition, double value, metrics::Samples& samples) {
  if (value > 0) samples.Add(definition, value);
}

void AddGpu(const v1::GpuHealth& gpu, metrics::Samples& samples) {
  AddKnown(metric::kGpuTemperature, gpu.temperature_celsius(), samples);
  AddKnown(metric::kGpuPower, gpu.power_watts(), samples);
  AddKnown(metric::kGpuClock, gpu.clock_mhz() * 1e6, samples);
  AddKnown(metric::kGpuMaxClock, gpu.max_clock_mhz() * 1e6, samples);
  for (const std::string_view why : kGpuSlowdowns) {
    samples.Add(metric::kGpuSlowed, IsSlowedBy(gpu, why) ? 1 : 0, {std::string(why)});
  }
  samples.Add(metric::kGpuErrors, static_cast<double>(gpu.uncorrected_errors()));
}

std::string Describe(const v1::Activity& activity) {
  if (activity.attempt().job().empty()) return "idle\n";
  std::string text =
      absl::StrCat(AttemptName(activity.attempt()), ": ", NameOf(activity.phase()), ", stage ", activity.stage());
  if (activity.step() >= 0) absl::StrAppend(&text, ", step ", activity.step());
  if (activity.micro_batch() >= 0) absl::StrAppend(&text, ", micro-batch ", activity.micro_batch());
  return text + "\n";
}

}  // namespace

metrics::Pages WorkerMonitor::Pages() {
  return {.metrics = [this] { return Metrics(); },
          // Whoever answers lives; what else may go wrong passes, or ends the process.
          .live = [] { return absl::OkStatus(); },
          .ready = [this] { return Ready(); },
          .status = [this] { return Status(); }};
}

std::vector<prometheus::MetricFamily> WorkerMonitor::Metrics() const {
  metrics::Samples samples;
  samples.Add(metric::kInfo, 1, {parts_.hello.name(), parts_.hello.device(), parts_.hello.device_name()});
  for (const auto& [name, version] : parts_.hello.software()) samples.Add(metric::kSoftware, 1, {name, version});
  samples.Add(metric::kConnected, parts_.connected() ? 1 : 0);
  AddPhases(parts_.activity().phase(), samples);
  const v1::DeviceUse use = parts_.use();
  AddKnown(metric::kGpuMemory, static_cast<double>(use.device_used_bytes()), samples);
  if (use.utilization() >= 0) samples.Add(metric::kUtilization, use.utilization());
  if (use.has_gpu()) AddGpu(use.gpu(), samples);
  metrics::AddProcess(metrics::ReadProcess(), samples);
  std::vector<prometheus::MetricFamily> families = samples.Take();
  std::vector<prometheus::MetricFamily> counted = parts_.counted->Collect();
  families.insert(families.end(), std::make_move_iterator(counted.begin()), std::make_move_iterator(counted.end()));
  return families;
}

std::vector<metrics::Check> WorkerMonitor::Ready() const {
  return {
      {"serving", leaving_ ? absl::UnavailableError("the worker is leaving") : absl::OkStatus()},
      {"session", parts_.connected() ? absl::OkStatus() : absl::UnavailableError("the orchestrator is not connected")},
  };
}

std::string WorkerMonitor::Status() const {
  return absl::StrCat("worker ", parts_.hello.name(), " on ", parts_.hello.device(), ", ", parts_.hello.device_name(),
                      "\nsession ", parts_.connected() ? "connected" : "not connected", "\n",
                      Describe(parts_.activity()));
}

}  // namespace gpipe::worker
