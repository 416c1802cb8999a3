#include "orchestrator/metrics/definitions.h"

#include "common/metrics/process.h"

namespace gpipe::orchestrator::metric {

std::vector<Definition> All() {
  std::vector<Definition> all = {
      kJobs,
      kSubmitted,
      kEnded,
      kFailures,
      kRestarts,
      kQueueDepth,
      kQueueOldest,
      kQueueWait,
      kSteps,
      kSamples,
      kStepDuration,
      kJobInfo,
      kJobAttempt,
      kJobRestarts,
      kJobRoundsDone,
      kJobRounds,
      kJobStepsDone,
      kJobSteps,
      kJobLoss,
      kJobStepSeconds,
      kJobForecastSeconds,
      kJobSamplesPerSecond,
      kBubble,
      kDataWait,
      kStageBusy,
      kStageSaved,
      kWorkers,
      kWorkerUp,
      kHeartbeatAge,
      kDeviceUtilization,
      kGpuMemory,
      kGpuTemperature,
      kGpuPower,
      kGpuClock,
      kGpuSlowed,
      kGpuErrors,
      kLoopUp,
      kLoopDelay,
      kCommit,
      kDatabaseBytes,
      kDiskFree,
      kDiskSize,
      kDiskFull,
      kWatchers,
      kCalls,
      kRejected,
      kConnectionsRefused,
  };
  const std::vector<Definition>& process = metrics::ProcessDefinitions();
  all.insert(all.end(), process.begin(), process.end());
  return all;
}

}  // namespace gpipe::orchestrator::metric
