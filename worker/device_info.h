#ifndef GPIPE_WORKER_DEVICE_INFO_H_
#define GPIPE_WORKER_DEVICE_INFO_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace gpipe::worker {

struct DeviceInfo {
  std::string name;  // `AMD EPYC 9654`, `NVIDIA H200`.
  int64_t memory_bytes = 0;
  int compute_capability = 0;  // Of a GPU: 90 is 9.0.
};

// What is known of `cpu` (from /proc) or `cuda:N`. CUDA is not touched for cpu. NOT_FOUND when there is no such GPU,
// naming those there are.
absl::StatusOr<DeviceInfo> GetDeviceInfo(const std::string& device);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DEVICE_INFO_H_
