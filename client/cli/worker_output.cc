#include "client/cli/worker_output.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/format.h"

namespace gpipe::client {
namespace {

std::string StateOf(const v1::Worker& worker) {
  const std::string& name = v1::Worker::State_Name(worker.state());
  return absl::StrCat(name.empty() ? absl::StrCat(worker.state()) : name.substr(sizeof("STATE_") - 1),
                      worker.drained() ? " drained" : "");
}

std::string DoingOf(const v1::Worker& worker) {
  const bool works = !worker.attempt().job().empty();
  if (!worker.reason().empty() && !(works && worker.drained())) return FirstLine(worker.reason());
  return works ? FormatActivity(worker.activity()) : "";
}

// Of a GPU all that is used of it; else what the process has.
std::string UsedBy(const v1::Worker& worker) {
  const int64_t gpu = worker.use().device_used_bytes(), process = worker.use().process_bytes();
  return gpu > 0 || process > 0 ? FormatBytes(gpu > 0 ? gpu : process) : "";
}

std::string LoadOf(const v1::Worker& worker) {
  return worker.has_use() && worker.use().utilization() >= 0 ? FormatPercent(worker.use().utilization()) : "";
}

std::string DeviceOf(const v1::Hello& hello) {
  return absl::StrCat(hello.device(), hello.device_name().empty() ? "" : " ", hello.device_name());
}

std::string HeardOf(const v1::Worker& worker) { return absl::StrFormat("%.1f s ago", worker.heartbeat_age_seconds()); }

// `slowed by heat`, `2 memory errors`; empty: it is well.
std::vector<std::string> TroublesOf(const v1::GpuHealth& gpu) {
  std::vector<std::string> troubles;
  if (gpu.slowed_by_size() > 0) troubles.push_back(absl::StrCat("slowed by ", absl::StrJoin(gpu.slowed_by(), " and ")));
  if (const int64_t errors = gpu.uncorrected_errors(); errors > 0) {
    troubles.push_back(absl::StrCat(errors, errors == 1 ? " memory error" : " memory errors"));
  }
  return troubles;
}

// `54 C 1980 MHz, slowed by heat`; empty on CPUs.
std::string HealthOf(const v1::Worker& worker) {
  const v1::GpuHealth& gpu = worker.use().gpu();
  std::vector<std::string> figures;
  if (gpu.temperature_celsius() > 0) figures.push_back(absl::StrCat(gpu.temperature_celsius(), " C"));
  if (gpu.clock_mhz() > 0) figures.push_back(absl::StrCat(gpu.clock_mhz(), " MHz"));
  std::vector<std::string> parts = TroublesOf(gpu);
  if (!figures.empty()) parts.insert(parts.begin(), absl::StrJoin(figures, " "));
  return absl::StrJoin(parts, ", ");
}

void AddGpu(std::string& text, const v1::GpuHealth& gpu) {
  if (gpu.temperature_celsius() > 0) AddField(text, "temperature", absl::StrCat(gpu.temperature_celsius(), " C"));
  if (gpu.power_watts() > 0) AddField(text, "power", absl::StrFormat("%.0f W", gpu.power_watts()));
  if (gpu.clock_mhz() > 0) {
    AddField(text, "clock", absl::StrCat(gpu.clock_mhz(), " MHz of at most ", gpu.max_clock_mhz(), " MHz"));
  }
  AddField(text, "trouble", absl::StrJoin(TroublesOf(gpu), ", "));
}

void AddSoftware(std::string& text, const v1::Hello& hello) {
  AddField(text, "gpipe", hello.version());
  const std::map<std::string, std::string> software(hello.software().begin(), hello.software().end());
  for (const auto& [name, version] : software) AddField(text, name.c_str(), version);
}

}  // namespace

std::string RenderWorkers(const v1::ListWorkersResponse& workers) {
  const bool any_gpu = std::any_of(workers.workers().begin(), workers.workers().end(),
                                   [](const v1::Worker& worker) { return worker.use().has_gpu(); });
  std::vector<std::string> header = {"NAME",  "STATE",   "DEVICE", ">THREADS", ">MEMORY", ">USED",
                                     ">LOAD", "ADDRESS", "JOB",    "DOING",    ">HEARD"};
  const auto health = std::find(header.begin(), header.end(), "ADDRESS") - header.begin();
  if (any_gpu) header.insert(header.begin() + health, "HEALTH");
  Table table(header);
  for (const v1::Worker& worker : workers.workers()) {
    const v1::Hello& hello = worker.hello();
    std::vector<std::string> row = {worker.name(),
                                    StateOf(worker),
                                    DeviceOf(hello),
                                    absl::StrCat(hello.threads()),
                                    FormatBytes(hello.memory_bytes()),
                                    UsedBy(worker),
                                    LoadOf(worker),
                                    hello.data_address(),
                                    worker.attempt().job(),
                                    DoingOf(worker),
                                    HeardOf(worker)};
    if (any_gpu) row.insert(row.begin() + health, HealthOf(worker));
    table.Add(std::move(row));
  }
  return table.Render();
}

std::string RenderWorker(const v1::Worker& worker) {
  const v1::Hello& hello = worker.hello();
  std::string text;
  AddField(text, "name", worker.name());
  AddField(text, "state", StateOf(worker));
  AddField(text, "reason", worker.reason());
  if (!worker.attempt().job().empty()) {
    AddField(text, "job", absl::StrCat(worker.attempt().job(), ", attempt ", worker.attempt().attempt()));
    AddField(text, "doing", FormatActivity(worker.activity()));
  }
  AddField(text, "device", DeviceOf(hello));
  AddField(text, "address", hello.data_address());
  if (hello.threads() > 0) AddField(text, "threads", absl::StrCat(hello.threads()));
  if (hello.memory_bytes() > 0) AddField(text, "memory", FormatBytes(hello.memory_bytes()));
  AddField(text, "used", UsedBy(worker));
  AddField(text, "load", LoadOf(worker));
  AddGpu(text, worker.use().gpu());
  AddField(text, "heard", HeardOf(worker));
  AddSoftware(text, hello);
  return text;
}

}  // namespace gpipe::client
