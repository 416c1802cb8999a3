#include <utility>

#include "pipeline/placement.h"
#include "pipeline/schedule.h"

namespace gpipe::pipeline {
namespace {

absl::Status CheckOptions(const ScheduleOptions& options) {
  if (absl::Status status = CheckPlacement(options.stage_worker, options.stages); !status.ok()) return status;
  if (options.micro_batches < 1) return absl::InvalidArgumentError("a schedule needs at least one micro-batch");
  if (!options.needs_backward.empty() && static_cast<int>(options.needs_backward.size()) != options.stages) {
    return absl::InvalidArgumentError("needs_backward must have one entry per stage");
  }
  return absl::OkStatus();
}

// Builds the rows cycle by cycle, so that every row is in execution order by construction.
class Builder {
 public:
  explicit Builder(const ScheduleOptions& options)
      : options_(options), fill_(options.micro_batches + options.stages - 1) {
    schedule_.stages = options.stages;
    schedule_.micro_batches = options.micro_batches;
    schedule_.stage_worker = options.stage_worker;
    schedule_.rows.resize(options.stage_worker.back() + 1);
    schedule_.cycles = options.training ? 2 * fill_ + 1 : fill_;
  }

  Schedule Build() && {
    for (int cycle = 0; cycle < fill_; ++cycle) AddForwardCycle(cycle);
    if (options_.training) {
      for (int cycle = 0; cycle < fill_; ++cycle) AddBackwardCycle(cycle);
      AddUpdate();
    }
    return std::move(schedule_);
  }

 private:
  void AddForwardCycle(int cycle) {
    for (int stage = 0; stage < options_.stages; ++stage) {
      const int micro_batch = cycle - stage;
      if (micro_batch < 0 || micro_batch >= options_.micro_batches) continue;
      Add({.stage = stage,
           .kind = ActionKind::kForward,
           .micro_batch = micro_batch,
           .cycle = cycle,
           .checkpointed = Checkpointed(stage, micro_batch)});
    }
  }

  // The mirror image of the forward: the last stage begins, with the last micro-batch.
  void AddBackwardCycle(int cycle) {
    for (int stage = options_.stages - 1; stage >= 0; --stage) {
      const int micro_batch = options_.micro_batches - 1 - (cycle - (options_.stages - 1 - stage));
      if (micro_batch < 0 || micro_batch >= options_.micro_batches || !NeedsBackward(stage)) continue;
      if (Checkpointed(stage, micro_batch)) {
        Add({.stage = stage, .kind = ActionKind::kRecompute, .micro_batch = micro_batch, .cycle = fill_ + cycle});
      }
      Add({.stage = stage, .kind = ActionKind::kBackward, .micro_batch = micro_batch, .cycle = fill_ + cycle});
    }
  }

  // Once per worker, under the name of its first stage.
  void AddUpdate() {
    for (int stage = 0; stage < options_.stages; ++stage) {
      if (stage > 0 && options_.stage_worker[stage] == options_.stage_worker[stage - 1]) continue;
      if (options_.reduce_gradients) Add({.stage = stage, .kind = ActionKind::kReduceGrad, .cycle = 2 * fill_});
      Add({.stage = stage, .kind = ActionKind::kOptimizer, .cycle = 2 * fill_});
    }
  }

  bool NeedsBackward(int stage) const { return options_.needs_backward.empty() || options_.needs_backward[stage]; }

  bool Checkpointed(int stage, int micro_batch) const {
    if (!options_.training || !NeedsBackward(stage)) return false;
    switch (options_.checkpoint) {
      case CheckpointMode::kAlways:
        return true;
      case CheckpointMode::kExceptLast:
        return micro_batch < options_.micro_batches - 1;
      case CheckpointMode::kNever:
        return false;
    }
    return false;
  }

  void Add(const Action& action) { schedule_.rows[options_.stage_worker[action.stage]].push_back(action); }

  const ScheduleOptions& options_;
  const int fill_;  // Clock cycles from the first stage's first to the last stage's last micro-batch.
  Schedule schedule_;
};

}  // namespace

absl::StatusOr<Schedule> GPipeSchedule(const ScheduleOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  return Builder(options).Build();
}

}  // namespace gpipe::pipeline
