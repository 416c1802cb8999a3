#ifndef GPIPE_WORKER_ENGINE_BEACON_H_
#define GPIPE_WORKER_ENGINE_BEACON_H_

#include "spdlog/spdlog.h"
#include "worker/engine/activity_tracker.h"
#include "worker/engine/attempt_control.h"
#include "worker/engine/failpoint.h"

namespace gpipe::worker {

// What every part of an attempt has to do with: where to say what it is about to do, and where a test makes it fail.
struct Beacon {
  ActivityTracker& activity;
  Failpoint& failpoint;
  AttemptControl& control;

  // Says what comes next, then passes the failpoint. An abort ends a failpoint that stops; the log says where it is.
  absl::Status Enter(v1::Phase phase, std::string_view failpoint_name, int stage = 0, int64_t step = -1,
                     int micro_batch = -1) const {
    activity.Set(phase, stage, step, micro_batch);
    return Pass(failpoint_name, step, micro_batch);
  }

  // The failpoint alone, for what another thread does beside the engine.
  absl::Status Pass(std::string_view failpoint_name, int64_t step, int micro_batch = -1) const {
    if (!failpoint.armed()) return absl::OkStatus();
    return failpoint.Hit(failpoint_name, [&] {
      spdlog::warn("stopped at failpoint {}: step {}, micro-batch {}", failpoint_name, step, micro_batch);
      return control.WaitForAbort();
    });
  }
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_BEACON_H_
