#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_FAILURE_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_FAILURE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// The code of a failure for want of a file as it was given.
inline constexpr std::string_view kDamagedFile = "DAMAGED_FILE";
inline constexpr std::string_view kOutOfMemory = "OUT_OF_MEMORY";
inline constexpr std::string_view kDiskFull = "DISK_FULL";

// What a worker was doing, as a user would say it: `forward of micro-batch 3 in step 17`, `preparing`.
std::string Doing(const v1::Activity& activity);

// DISK_FULL, NOT_FINITE, ...: the failure's code of a status.
std::string_view FailureCode(const absl::Status& status);

// Whether a job that failed with that code may do better in another attempt: it is not of its own making.
bool IsRestarted(std::string_view code);
// Whether that is one of the restarts that the job's spec allows: a planned stop is none.
bool CountsAsRestart(std::string_view code);
// Whether a worker may have ended so because of what the job had it compute.
bool MayBeTheStep(std::string_view code);

// `worker` hosted `stage` and ended its part for `what` ("was lost", "failed", "left"), with `why`:
// `worker w1 (stage 1) was lost during the backward of micro-batch 3 in step 17: connection closed`.
v1::Failure WorkerFailure(std::string_view code, std::string_view worker, int stage, const v1::Activity& activity,
                          std::string_view what, std::string_view why);

// A failure that no worker is to blame for.
v1::Failure PlainFailure(const absl::Status& status);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_FAILURE_H_
