#include "pipeline/simulator.h"

#include <algorithm>
#include <utility>

#include "pipeline/replay.h"
#include "pipeline/transfers.h"

namespace gpipe::pipeline {
namespace {

double DurationOf(const Action& action, const StageCost& cost) {
  switch (action.kind) {
    case ActionKind::kForward:
      return cost.forward;
    case ActionKind::kBackward:
      return cost.backward;
    case ActionKind::kRecompute:
      return cost.recompute;
    case ActionKind::kOptimizer:
      return cost.optimizer;
    default:
      return 0;
  }
}

// Bytes each stage keeps, from action to action. A stage without a backward keeps nothing.
class Memory {
 public:
  Memory(const std::vector<StageCost>& stages, const Transfers& transfers)
      : stages_(stages), transfers_(transfers), bytes_(stages.size()), peak_(stages.size()) {}

  void Apply(const Action& action) {
    if (!transfers_.HasBackward(action.stage)) return;
    const StageCost& cost = stages_[action.stage];
    int64_t& bytes = bytes_[action.stage];
    if (action.kind == ActionKind::kForward) {
      bytes += cost.input_bytes + (action.checkpointed ? 0 : cost.saved_bytes);
    } else if (action.kind == ActionKind::kRecompute) {
      bytes += cost.saved_bytes;
    } else if (action.kind == ActionKind::kBackward) {
      bytes -= cost.input_bytes + cost.saved_bytes;
    }
    peak_[action.stage] = std::max(peak_[action.stage], bytes);
  }

  const std::vector<int64_t>& peak() const { return peak_; }

 private:
  const std::vector<StageCost>& stages_;
  const Transfers& transfers_;
  std::vector<int64_t> bytes_, peak_;
};

class Simulation {
 public:
  Simulation(const Schedule& schedule, const std::vector<Edge>& edges, const std::vector<StageCost>& stages,
             const std::vector<EdgeSeconds>& edge_seconds)
      : stages_(stages),
        edge_seconds_(edge_seconds),
        replay_(schedule, edges),
        transfers_(edges, schedule),
        memory_(stages, transfers_),
        now_(schedule.rows.size(), 0) {}

  absl::StatusOr<SimulatedTimeline> Run() && {
    for (bool progress = true; progress;) {
      progress = false;
      for (int worker = 0; worker < replay_.workers(); ++worker) {
        for (; replay_.Ready(worker); progress = true) Step(worker);
      }
    }
    for (int worker = 0; worker < replay_.workers(); ++worker) {
      if (!replay_.Done(worker)) return absl::FailedPreconditionError(replay_.Standstill());
    }
    return Finish();
  }

 private:
  void Step(int worker) {
    const Action& action = replay_.Next(worker);
    if (action.kind == ActionKind::kReduceGrad) WaitForAll(worker);
    const double start = now_[worker];
    now_[worker] += DurationOf(action, stages_[action.stage]);
    busy_ += now_[worker] - start;
    if (const Replay::Event* needed = replay_.Needed(worker)) now_[worker] = std::max(now_[worker], needed->at);
    replay_.Take(worker, now_[worker], IsSend(action.kind) ? SecondsOf(action) : 0);
    memory_.Apply(action);
    if (IsCompute(action.kind)) timeline_.actions.push_back({action, worker, start, now_[worker]});
  }

  double SecondsOf(const Action& send) const {
    const EdgeSeconds& seconds = edge_seconds_[send.edge];
    return DirectionOf(send.kind) == Direction::kForward ? seconds.value : seconds.gradient;
  }

  // The first worker to pass finds all others at their REDUCE_GRAD too.
  void WaitForAll(int worker) {
    for (int other = 0; other < replay_.workers(); ++other) {
      const bool waits = !replay_.Done(other) && replay_.Next(other).kind == ActionKind::kReduceGrad;
      if (waits) gradients_complete_ = std::max(gradients_complete_, now_[other]);
    }
    now_[worker] = std::max(now_[worker], gradients_complete_);
  }

  SimulatedTimeline Finish() {
    std::stable_sort(timeline_.actions.begin(), timeline_.actions.end(),
                     [](const auto& a, const auto& b) { return a.start < b.start; });
    timeline_.seconds = *std::max_element(now_.begin(), now_.end());
    if (timeline_.seconds > 0) timeline_.bubble_share = 1 - busy_ / (replay_.workers() * timeline_.seconds);
    timeline_.peak_bytes = memory_.peak();
    return std::move(timeline_);
  }

  const std::vector<StageCost>& stages_;
  const std::vector<EdgeSeconds>& edge_seconds_;
  Replay replay_;
  const Transfers transfers_;
  Memory memory_;
  std::vector<double> now_;  // By worker.
  double gradients_complete_ = 0;
  double busy_ = 0;
  SimulatedTimeline timeline_;
};

}  // namespace

absl::StatusOr<SimulatedTimeline> Simulate(const Schedule& schedule, const std::vector<Edge>& edges,
                                           const std::vector<StageCost>& stages,
                                           const std::vector<EdgeSeconds>& edge_seconds) {
  if (static_cast<int>(stages.size()) != schedule.stages || edge_seconds.size() != edges.size()) {
    return absl::InvalidArgumentError("costs must be given for every stage and edge");
  }
  return Simulation(schedule, edges, stages, edge_seconds).Run();
}

}  // namespace gpipe::pipeline
