#ifndef GPIPE_COMMON_PLAN_CHECKPOINT_MODE_H_
#define GPIPE_COMMON_PLAN_CHECKPOINT_MODE_H_

#include "gpipe/v1/job_spec.pb.h"
#include "pipeline/schedule.h"

namespace gpipe {

// REQUIRES: it has been decided, if the spec left it open.
inline pipeline::CheckpointMode FromProto(v1::Checkpoint checkpoint) {
  if (checkpoint == v1::CHECKPOINT_ALWAYS) return pipeline::CheckpointMode::kAlways;
  if (checkpoint == v1::CHECKPOINT_NEVER) return pipeline::CheckpointMode::kNever;
  return pipeline::CheckpointMode::kExceptLast;
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_PLAN_CHECKPOINT_MODE_H_
