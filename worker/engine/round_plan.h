#ifndef GPIPE_WORKER_ENGINE_ROUND_PLAN_H_
#define GPIPE_WORKER_ENGINE_ROUND_PLAN_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "pipeline/action.h"
#include "pipeline/steps.h"
#include "pipeline/timeline.h"

namespace gpipe::worker {

using pipeline::Step;

// One worker's row of a program.
struct WorkerProgram {
  v1::ProgramKind kind = v1::PROGRAM_KIND_UNSPECIFIED;
  int64_t batch_size = 0;
  std::vector<int64_t> micro_batch_sizes;
  std::vector<int64_t> offsets;  // Of each micro-batch in the mini-batch.
  int cycles = 1;
  std::vector<Step> row;
};

// A round and what to do in it. The program is owned by the ProgramTable; that of a round that computes nothing is
// empty.
struct RoundPlan {
  pipeline::Round round;
  v1::Round told;  // The same, with all that was said of it.
  const WorkerProgram* program = nullptr;

  // In training mode.
  bool training() const { return pipeline::TraitsOf(round.kind).trains; }
  // Asked for by a client.
  bool asked() const { return pipeline::TraitsOf(round.kind).asked; }
  // No barrier between this round and the next of its kind: receives may be posted across it.
  bool streams() const {
    return round.kind == pipeline::RoundKind::kEvaluate || round.kind == pipeline::RoundKind::kInfer;
  }
};

// The programs of a plan as one worker executes them, and those that came later. Movable; one thread.
class ProgramTable {
 public:
  // Keeps a reference to the plan. INVALID_ARGUMENT when it cannot be executed by this worker: stages, edges, actions
  // or sizes that do not fit, or values of one boundary that are not moved together.
  static absl::StatusOr<ProgramTable> Create(const v1::Plan& plan, int worker);

  // Programs that count on behind those that are there, with the same error.
  absl::Status Add(const google::protobuf::RepeatedPtrField<v1::Program>& programs);

  // INTERNAL when the round is none, or its program is not of its kind and size. The result refers to this
  // table.
  absl::StatusOr<RoundPlan> Find(const v1::Round& round) const;

 private:
  ProgramTable(const v1::Plan& plan, int worker) : plan_(&plan), worker_(worker) {}

  const v1::Plan* plan_;
  int worker_;
  std::deque<WorkerProgram> programs_;  // Which stay where they are.
  WorkerProgram nothing_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ROUND_PLAN_H_
