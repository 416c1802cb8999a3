#ifndef GPIPE_WORKER_ENGINE_ROUND_RUNNER_H_
#define GPIPE_WORKER_ENGINE_ROUND_RUNNER_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/statusor.h"
#include "worker/data/read_ahead.h"
#include "worker/engine/action_executor.h"
#include "worker/engine/grant_gate.h"
#include "worker/engine/round_feed.h"
#include "worker/engine/round_ledger.h"
#include "worker/engine/round_plan.h"
#include "worker/engine/round_trace.h"
#include "worker/engine/transfer_queue.h"

namespace gpipe::worker {

// Walks the rounds of an attempt: waits for the grant of each clock cycle, has its actions done in the row's order, and
// posts receives before they are needed. Used by the engine's thread only.
class RoundRunner {
 public:
  // All of it outlives the runner.
  struct Parts {
    ProgramTable& programs;
    ReadAhead* data;  // Null: this worker reads none.
    Communicator& communicator;
    c10::Device device;
    TransferQueue& transfers;
    ActionExecutor& executor;
    RoundLedger& ledger;
    RoundFeed& rounds;
    GrantGate& gate;
    ActivityTracker& activity;
    RoundTrace& trace;
  };
  // What is done between rounds, when the device has done all before.
  struct Hooks {
    // Begins a checkpoint after so many optimizer steps.
    std::function<absl::Status(int64_t step)> save_checkpoint;
    // Stores the trained model.
    std::function<absl::Status()> store_model;
    // What a client asks for that runs no program; what it made, if anything.
    std::function<absl::StatusOr<std::optional<v1::ArtifactRef>>(const RoundPlan& plan)> asked;
    // The samples of a round that a client asks for, as far as this worker reads them.
    std::function<absl::StatusOr<Batch>(const RoundPlan& plan)> read_asked;
  };

  explicit RoundRunner(Parts parts) : parts_(parts) {}

  // Runs all rounds; returns when all are done and reported, or at the first error.
  absl::Status Run(const Hooks& hooks);

 private:
  absl::Status RunRound(const RoundPlan& plan, const Hooks& hooks);
  absl::StatusOr<Batch> ReadData(const RoundPlan& plan, const Hooks& hooks, RoundRecord& record);
  absl::Status RunActions(const RoundPlan& plan);
  // Waits until all workers have received what was sent in the rounds so far.
  absl::Status Meet();
  // A round that computes nothing.
  absl::Status RunHook(const RoundPlan& plan, const Hooks& hooks);
  absl::Status CallHook(const RoundPlan& plan, const Hooks& hooks, RoundRecord& record);

  // Waits until the clock cycle is granted, having reported what is done.
  absl::Status Admit(const RoundPlan& plan, int cycle);

  // Posts the receives up to the second compute action from `position` on, into the next round where rounds stream;
  // where that is not safe (TransferQueue::may_post_early), the receive at `position` alone.
  absl::Status PostReceives(const RoundPlan& plan, size_t position);
  // Posts the receives of `row` from `posted` on until `ahead` compute actions have been passed.
  absl::Status PostFrom(const RoundPlan& plan, size_t& posted, size_t position, int& ahead);
  // Posts a receive of the row, into `room` (TransferQueue::PostReceive).
  absl::Status Post(const RoundPlan& plan, const Step& step, at::TensorList room);

  // The next round, which is waited for, and a look at the one after it, if that is known.
  absl::StatusOr<std::optional<RoundPlan>> Next();
  absl::StatusOr<std::optional<RoundPlan>> Find(const absl::StatusOr<std::optional<v1::Round>>& told);

  const Parts parts_;
  std::optional<RoundPlan> peeked_;
  size_t posted_ = 0;       // Steps of the current row whose receives are posted.
  size_t posted_next_ = 0;  // The same in the peeked round's row.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ROUND_RUNNER_H_
