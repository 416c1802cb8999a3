#ifndef GPIPE_COMMON_GPU_HEALTH_H_
#define GPIPE_COMMON_GPU_HEALTH_H_

#include <algorithm>
#include <string_view>

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe {

// All words that there are in GpuHealth.slowed_by. `power`: it draws what it may, or its supply asks for less; `heat`:
// it is too hot; `hardware`: the GPU itself brakes, by half or more, not its driver.
inline constexpr std::string_view kSlowedByPower = "power", kSlowedByHeat = "heat", kSlowedByHardware = "hardware";
inline constexpr std::string_view kGpuSlowdowns[] = {kSlowedByPower, kSlowedByHeat, kSlowedByHardware};

inline bool IsSlowedBy(const v1::GpuHealth& gpu, std::string_view why) {
  return std::find(gpu.slowed_by().begin(), gpu.slowed_by().end(), why) != gpu.slowed_by().end();
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_GPU_HEALTH_H_
