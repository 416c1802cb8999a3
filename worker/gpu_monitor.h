#ifndef GPIPE_WORKER_GPU_MONITOR_H_
#define GPIPE_WORKER_GPU_MONITOR_H_

#include <memory>
#include <optional>
#include <string>

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::worker {

// Asks NVIDIA's management library, which is there where a driver is, about one GPU. It does not touch the GPU's
// contexts, so that it waits for no kernel. Any thread may call any method.
class GpuMonitor {
 public:
  static constexpr char kLibrary[] = "libnvidia-ml.so.1";

  // Null when the library or the GPU is not there. `bus_id` is as CUDA says it: `0000:3B:00.0`.
  static std::unique_ptr<GpuMonitor> Open(const std::string& library, const std::string& bus_id);
  // The same of `cuda:N`.
  static std::unique_ptr<GpuMonitor> OpenDevice(const std::string& device);

  GpuMonitor(const GpuMonitor&) = delete;
  GpuMonitor& operator=(const GpuMonitor&) = delete;
  ~GpuMonitor();

  // Memory, utilization and health as they are now. What the driver does not say is 0, utilization then -1; there is no
  // health when it says nothing of it.
  void Measure(v1::DeviceUse& use) const;

  // `580.65.06`; empty when the driver does not say.
  std::string DriverVersion() const;

 private:
  // NVIDIA's stable binary interface, of which a few functions are needed.
  using Handle = void*;
  struct Memory {
    unsigned long long total = 0, free = 0, used = 0;
  };
  struct Utilization {
    unsigned int gpu = 0, memory = 0;
  };

  GpuMonitor() = default;
  bool Load(const char* library, const char* bus_id);
  void FindOptional();
  v1::GpuHealth Health() const;

  template <typename Function>
  bool Find(const char* name, Function*& function);
  // What `function` says of the GPU; nothing when the driver has no such function, or no answer.
  template <typename Value, typename Function, typename... What>
  std::optional<Value> Ask(Function* function, What... what) const;

  void* library_ = nullptr;
  Handle handle_ = nullptr;
  int (*memory_info_)(Handle, Memory*) = nullptr;
  int (*utilization_rates_)(Handle, Utilization*) = nullptr;
  // Null where the driver is too old for it.
  int (*temperature_)(Handle, int sensor, unsigned int*) = nullptr;
  int (*power_usage_)(Handle, unsigned int*) = nullptr;
  int (*clock_)(Handle, int type, unsigned int*) = nullptr;
  int (*max_clock_)(Handle, int type, unsigned int*) = nullptr;
  int (*clock_reasons_)(Handle, unsigned long long*) = nullptr;
  int (*ecc_errors_)(Handle, int type, int counter, unsigned long long*) = nullptr;
  int (*driver_version_)(char*, unsigned int) = nullptr;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_GPU_MONITOR_H_
