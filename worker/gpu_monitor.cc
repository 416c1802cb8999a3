#include "worker/gpu_monitor.h"

#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "common/gpu_health.h"

namespace gpipe::worker {
namespace {

// Of nvml.h.
constexpr int kSuccess = 0;
constexpr int kSensorOfGpu = 0;
constexpr int kClockOfMultiprocessors = 1;
constexpr int kUncorrected = 1, kSinceDriverWasLoaded = 0;
constexpr unsigned int kVersionLength = 80;

// Why the clock is not higher. What is left out is no trouble: that the GPU is idle, and what somebody has set.
constexpr unsigned long long kPowerCap = 0x4, kHardwareSlowdown = 0x8, kDriverHeat = 0x20, kHardwareHeat = 0x40,
                             kPowerBrake = 0x80;
struct Slowdown {
  std::string_view word;
  unsigned long long reasons;
};
constexpr Slowdown kSlowdowns[] = {{kSlowedByPower, kPowerCap | kPowerBrake},
                                   {kSlowedByHeat, kDriverHeat | kHardwareHeat},
                                   {kSlowedByHardware, kHardwareSlowdown | kHardwareHeat | kPowerBrake}};

// A driver's nonsense must not become a negative number.
template <typename Number, typename Value>
Number Clamp(Value value) {
  return static_cast<Number>(std::min<unsigned long long>(value, std::numeric_limits<Number>::max()));
}

}  // namespace

std::unique_ptr<GpuMonitor> GpuMonitor::Open(const std::string& library, const std::string& bus_id) {
  std::unique_ptr<GpuMonitor> monitor(new GpuMonitor);
  return monitor->Load(library.c_str(), bus_id.c_str()) ? std::move(monitor) : nullptr;
}

std::unique_ptr<GpuMonitor> GpuMonitor::OpenDevice(const std::string& device) {
  int index = 0;
  char bus_id[32] = {};
  if (!absl::SimpleAtoi(absl::StripPrefix(device, "cuda:"), &index)) return nullptr;
  if (cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), index) != cudaSuccess) return nullptr;
  return Open(kLibrary, bus_id);
}

GpuMonitor::~GpuMonitor() {
  if (library_ != nullptr) dlclose(library_);
}

template <typename Function>
bool GpuMonitor::Find(const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library_, name));
  return function != nullptr;
}

bool GpuMonitor::Load(const char* library, const char* bus_id) {
  library_ = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) return false;
  int (*init)() = nullptr;
  int (*by_bus_id)(const char*, Handle*) = nullptr;
  FindOptional();
  return Find("nvmlInit_v2", init) && Find("nvmlDeviceGetHandleByPciBusId_v2", by_bus_id) &&
         Find("nvmlDeviceGetMemoryInfo", memory_info_) && Find("nvmlDeviceGetUtilizationRates", utilization_rates_) &&
         init() == kSuccess && by_bus_id(bus_id, &handle_) == kSuccess;
}

void GpuMonitor::FindOptional() {
  Find("nvmlDeviceGetTemperature", temperature_);
  Find("nvmlDeviceGetPowerUsage", power_usage_);
  Find("nvmlDeviceGetClockInfo", clock_);
  Find("nvmlDeviceGetMaxClockInfo", max_clock_);
  // Drivers before 535 have the second name only.
  if (!Find("nvmlDeviceGetCurrentClocksEventReasons", clock_reasons_)) {
    Find("nvmlDeviceGetCurrentClocksThrottleReasons", clock_reasons_);
  }
  Find("nvmlDeviceGetTotalEccErrors", ecc_errors_);
  Find("nvmlSystemGetDriverVersion", driver_version_);
}

template <typename Value, typename Function, typename... What>
std::optional<Value> GpuMonitor::Ask(Function* function, What... what) const {
  Value value = {};
  if (function == nullptr || function(handle_, what..., &value) != kSuccess) return std::nullopt;
  return value;
}

void GpuMonitor::Measure(v1::DeviceUse& use) const {
  use.set_device_used_bytes(Clamp<int64_t>(Ask<Memory>(memory_info_).value_or(Memory()).used));
  const std::optional<Utilization> utilization = Ask<Utilization>(utilization_rates_);
  use.set_utilization(utilization.has_value() ? utilization->gpu / 100.0 : -1);
  const v1::GpuHealth health = Health();
  use.clear_gpu();
  if (health.ByteSizeLong() > 0) *use.mutable_gpu() = health;
}

v1::GpuHealth GpuMonitor::Health() const {
  const auto number = [this](auto* function, auto... what) { return Ask<unsigned int>(function, what...).value_or(0); };
  v1::GpuHealth health;
  health.set_temperature_celsius(Clamp<int32_t>(number(temperature_, kSensorOfGpu)));
  health.set_power_watts(number(power_usage_) / 1000.0);
  health.set_clock_mhz(Clamp<int32_t>(number(clock_, kClockOfMultiprocessors)));
  health.set_max_clock_mhz(Clamp<int32_t>(number(max_clock_, kClockOfMultiprocessors)));
  const auto reasons = Ask<unsigned long long>(clock_reasons_).value_or(0);
  for (const Slowdown& slowdown : kSlowdowns) {
    if ((reasons & slowdown.reasons) != 0) health.add_slowed_by(std::string(slowdown.word));
  }
  const auto errors = Ask<unsigned long long>(ecc_errors_, kUncorrected, kSinceDriverWasLoaded);
  health.set_uncorrected_errors(Clamp<int64_t>(errors.value_or(0)));
  return health;
}

std::string GpuMonitor::DriverVersion() const {
  char version[kVersionLength] = {};
  if (driver_version_ == nullptr || driver_version_(version, kVersionLength - 1) != kSuccess) return "";
  return version;
}

}  // namespace gpipe::worker
