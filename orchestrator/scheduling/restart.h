#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_RESTART_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_RESTART_H_

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "gpipe/v1/job.pb.h"

namespace gpipe::orchestrator {

// What becomes of a job whose attempt has failed.
struct AfterFailure {
  // It runs again from its newest checkpoint, so much later at the earliest; nullopt: it has failed.
  std::optional<absl::Duration> restarts_in;
  // Whether that is one of those restarts that the spec allows.
  bool counts = true;
  // As the job's reason says it: `restarts in 2 s (2 of 3): worker w1 (stage 1) was lost ...`.
  std::string why;
};

// `job` as it was when that happened, with its restarts and the failure before. It restarts as often as its spec allows
// after a failure that is not of its own making (failure.h), unless it is one step that costs one worker after the
// other; and after a planned stop of a worker however often, unless it may not restart at all. One that ran out of
// memory because all activations were kept, which its spec has not asked for, runs again without keeping them. Pure.
AfterFailure JudgeFailure(const v1::Job& job, const v1::Failure& failure);

// How often a job may restart, also one that was stored when that had no default.
int MaxRestarts(const v1::JobSpec& spec);

// The step that is under way, as Failure.step counts them.
int64_t StepUnderWay(const v1::Job& job);

// Before the restart with that number, from 1: 1 s, doubling up to this.
inline constexpr absl::Duration kLongestRestartDelay = absl::Seconds(60);
absl::Duration RestartDelay(int restart);

// `restart 2 of 3`; of one that does not count `restart`.
std::string RestartNumber(const v1::Job& job);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_RESTART_H_
