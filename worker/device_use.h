#ifndef GPIPE_WORKER_DEVICE_USE_H_
#define GPIPE_WORKER_DEVICE_USE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/gpu_monitor.h"

namespace gpipe::worker {

// How much of its machine this process uses, for heartbeats and metrics. Any thread may call any method.
class DeviceUseMeter {
 public:
  // Measured anew at most this often: a share of a shorter time says nothing.
  static constexpr absl::Duration kInterval = absl::Milliseconds(500);

  // `device` is `cpu` or `cuda:N`. Of a GPU that cannot be asked, memory is 0, utilization -1, and no health known.
  explicit DeviceUseMeter(const std::string& device);

  v1::DeviceUse Take();

  // Of the GPU's driver; empty when it is not known.
  std::string DriverVersion() const;

 private:
  // Of all cores, since the last measurement.
  double CpuShare(absl::Duration elapsed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SteadyClock clock_;
  const std::unique_ptr<GpuMonitor> gpu_;  // Null on CPUs, and where there is no such library.
  const bool is_gpu_;
  absl::Mutex mutex_;
  absl::Time measured_ ABSL_GUARDED_BY(mutex_);
  absl::Duration cpu_time_ ABSL_GUARDED_BY(mutex_);  // At the last measurement.
  v1::DeviceUse last_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DEVICE_USE_H_
