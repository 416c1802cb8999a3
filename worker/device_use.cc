#include "worker/device_use.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>

namespace gpipe::worker {
namespace {

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return statm ? resident * sysconf(_SC_PAGESIZE) : 0;
}

absl::Duration CpuTime() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return absl::DurationFromTimeval(usage.ru_utime) + absl::DurationFromTimeval(usage.ru_stime);
}

}  // namespace

DeviceUseMeter::DeviceUseMeter(const std::string& device)
    : gpu_(device == "cpu" ? nullptr : GpuMonitor::OpenDevice(device)), is_gpu_(device != "cpu"), cpu_time_(CpuTime()) {
  measured_ = clock_.Now();
  last_.set_utilization(-1);
  last_.set_process_bytes(ResidentBytes());
  if (gpu_ != nullptr) gpu_->Measure(last_);
}

std::string DeviceUseMeter::DriverVersion() const { return gpu_ == nullptr ? "" : gpu_->DriverVersion(); }

v1::DeviceUse DeviceUseMeter::Take() {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = clock_.Now();
  if (now - measured_ < kInterval) return last_;
  last_.set_process_bytes(ResidentBytes());
  const double cpu_share = CpuShare(now - measured_);
  if (!is_gpu_) last_.set_utilization(cpu_share);
  if (gpu_ != nullptr) gpu_->Measure(last_);
  measured_ = now;
  return last_;
}

double DeviceUseMeter::CpuShare(absl::Duration elapsed) {
  const absl::Duration before = cpu_time_;
  cpu_time_ = CpuTime();
  const double cores = std::max(1U, std::thread::hardware_concurrency());
  return std::clamp(absl::FDivDuration(cpu_time_ - before, elapsed) / cores, 0.0, 1.0);
}

}  // namespace gpipe::worker
