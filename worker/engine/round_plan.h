#ifndef GPIPE_WORKER_ENGINE_ROUND_PLAN_H_
#define GPIPE_WORKER_ENGINE_ROUND_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "pipeline/action.h"
#include "pipeline/timeline.h"

namespace gpipe::worker {

// One worker's row of a program.
struct WorkerProgram {
  v1::ProgramKind kind = v1::PROGRAM_KIND_UNSPECIFIED;
  int64_t batch_size = 0;
  std::vector<int64_t> micro_batch_sizes;
  std::vector<int64_t> offsets;  // Of each micro-batch in the mini-batch.
  int cycles = 1;
  std::vector<pipeline::Action> row;
};

// A round and what to do in it. The program is owned by the ProgramTable; that of a round that computes nothing is
// empty.
struct RoundPlan {
  pipeline::Round round;
  double learning_rate = 0;  // kTrain.
  const WorkerProgram* program = nullptr;

  bool training() const { return round.kind == pipeline::RoundKind::kTrain; }
  // No barrier between this round and the next of its kind: receives may be posted across it.
  bool streams() const {
    return round.kind == pipeline::RoundKind::kEvaluate || round.kind == pipeline::RoundKind::kInfer;
  }
};

// The programs of a plan as one worker executes them. Immutable after Create.
class ProgramTable {
 public:
  // INVALID_ARGUMENT when the plan cannot be executed by this worker: stages, edges, actions or sizes that do not fit.
  static absl::StatusOr<ProgramTable> Create(const v1::Plan& plan, int worker);

  // INTERNAL when the round is none, or its program is not of its kind and size. The result refers to this
  // table.
  absl::StatusOr<RoundPlan> Find(const v1::Round& round) const;

 private:
  std::vector<WorkerProgram> programs_;  // As in the plan.
  WorkerProgram nothing_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ROUND_PLAN_H_
