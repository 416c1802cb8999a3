#include "worker/monitor/definitions.h"

#include "common/metrics/process.h"

namespace gpipe::worker::metric {

std::vector<Definition> All() {
  std::vector<Definition> all = {kInfo,           kSoftware,
                                 kConnected,      kPhase,
                                 kFailures,       kNcclErrors,
                                 kGpuMemory,      kUtilization,
                                 kGpuTemperature, kGpuPower,
                                 kGpuClock,       kGpuMaxClock,
                                 kGpuSlowed,      kGpuErrors,
                                 kRoundDuration,  kCompute,
                                 kIdle,           kSaved,
                                 kDataWait,       kCommBytes,
                                 kCommSeconds,    kCheckpointSeconds,
                                 kCheckpointBytes};
  const std::vector<Definition>& process = metrics::ProcessDefinitions();
  all.insert(all.end(), process.begin(), process.end());
  return all;
}

}  // namespace gpipe::worker::metric
