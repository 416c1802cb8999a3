#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pipeline/grid.h"
#include "pipeline/placement.h"
#include "pipeline/replay.h"
#include "pipeline/schedule.h"
#include "pipeline/steps.h"
#include "pipeline/transfers.h"

namespace gpipe::pipeline {
namespace {

// An error at one action: what is wrong, and the grid around it with the faulty cell marked.
absl::Status Fault(const Schedule& schedule, int worker, const Action& action, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("worker ", worker, ", cycle ", action.cycle, ", ", ToString(action),
                                                 ": ", what, "\n", RenderGridAround(schedule, worker, action.cycle)));
}

// What has to hold before a stage or worker may be used as an index.
absl::Status CheckShape(const Schedule& schedule) {
  if (absl::Status status = CheckPlacement(schedule.stage_worker, schedule.stages); !status.ok()) return status;
  if (schedule.micro_batches < 1 || schedule.cycles < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a schedule of ", schedule.micro_batches, " micro-batches and ",
                                                   schedule.cycles, " clock cycles does nothing"));
  }
  const size_t workers = schedule.stage_worker.back() + 1;
  if (schedule.rows.size() == workers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(schedule.rows.size(), " rows for ", workers, " workers"));
}

// Checks each action by itself: that it names a stage of this worker, a micro-batch, an edge and a cycle that exist.
absl::Status CheckPlaces(const Schedule& schedule, const std::vector<Edge>& edges, int worker) {
  int cycle = 0;
  for (const Action& action : schedule.rows[worker]) {
    const auto bad = [&](const std::string& what) { return Fault(schedule, worker, action, what); };
    if (action.stage < 0 || action.stage >= schedule.stages) return bad("there is no such stage");
    if (schedule.stage_worker[action.stage] != worker) return bad("the stage belongs to another worker");
    const bool known = action.micro_batch >= 0 && action.micro_batch < schedule.micro_batches;
    if (HasMicroBatch(action.kind) && !known) return bad("there is no such micro-batch");
    if (IsTransfer(action.kind) && (action.edge < 0 || action.edge >= static_cast<int>(edges.size()))) {
      return bad("there is no such edge");
    }
    if (action.cycle < cycle) return bad("clock cycles must ascend");
    if (action.cycle >= schedule.cycles) return bad("the cycle lies beyond the schedule's end");
    cycle = action.cycle;
  }
  return absl::OkStatus();
}

// Checks the work of one worker's row: complete, and in an order in which each action has what it needs.
class WorkChecker {
 public:
  WorkChecker(const Schedule& schedule, const Transfers& transfers, int worker)
      : schedule_(schedule), transfers_(transfers), worker_(worker) {}

  // `trains`: some stage of the schedule, maybe on another worker, has a backward.
  absl::Status Check(bool trains) {
    absl::Status status = CheckComplete(trains);
    for (const Action& action : schedule_.rows[worker_]) {
      if (status.ok()) status = CheckAction(action);
    }
    return status;
  }

 private:
  using Key = std::pair<int, int>;  // Stage, micro-batch.

  absl::Status CheckAction(const Action& action) {
    switch (action.kind) {
      case ActionKind::kForward:
        return CheckForward(action);
      case ActionKind::kRecompute:
        return CheckRecompute(action);
      case ActionKind::kBackward:
        return CheckBackward(action);
      case ActionKind::kReduceGrad:
        return reduces_++ > 0 ? Bad(action, "the gradients were reduced before") : CheckBeforeUpdate(action);
      case ActionKind::kOptimizer:
        return updates_++ > 0 ? Bad(action, "the optimizer step was done before") : absl::OkStatus();
      default:
        return absl::OkStatus();
    }
  }

  absl::Status CheckForward(const Action& action) {
    const Key key{action.stage, action.micro_batch};
    if (!forward_.insert(key).second) return Bad(action, "this forward was done before");
    if (action.checkpointed) checkpointed_.insert(key);
    for (const int index : transfers_.Into(action.stage)) {
      const Edge& edge = transfers_.edges()[index];
      if (!transfers_.IsLocal(edge)) continue;
      if (forward_.count({edge.from_stage, action.micro_batch}) == 0) {
        return Bad(action, absl::StrCat("it uses ", edge.value, " before stage ", edge.from_stage, " makes it"));
      }
    }
    return CheckBeforeUpdate(action);
  }

  absl::Status CheckRecompute(const Action& action) {
    const Key key{action.stage, action.micro_batch};
    if (checkpointed_.count(key) == 0) return Bad(action, "nothing was checkpointed before this recompute");
    if (!recomputed_.insert(key).second) return Bad(action, "this recompute was done before");
    if (backward_.count(key) > 0) return Bad(action, "the recompute comes after its backward");
    return CheckBeforeUpdate(action);
  }

  absl::Status CheckBackward(const Action& action) {
    const Key key{action.stage, action.micro_batch};
    if (forward_.count(key) == 0) return Bad(action, "the backward comes before its forward");
    if (checkpointed_.count(key) > recomputed_.count(key)) return Bad(action, "the recompute is missing");
    if (!backward_.insert(key).second) return Bad(action, "this backward was done before");
    for (const int index : transfers_.OutOf(action.stage)) {
      const Edge& edge = transfers_.edges()[index];
      if (!transfers_.IsLocal(edge) || !transfers_.HasGradient(edge)) continue;
      if (backward_.count({edge.to_stage, action.micro_batch}) == 0) {
        return Bad(action,
                   absl::StrCat("it needs the gradient of ", edge.value, " before stage ", edge.to_stage, " makes it"));
      }
    }
    return CheckBeforeUpdate(action);
  }

  absl::Status CheckBeforeUpdate(const Action& action) const {
    if (updates_ > 0) return Bad(action, "it comes after the optimizer step");
    if (reduces_ > 0 && action.kind != ActionKind::kReduceGrad) return Bad(action, "the gradients are reduced already");
    return absl::OkStatus();
  }

  // Before the order, because what is missing says more than what lacks it.
  absl::Status CheckComplete(bool trains) const {
    std::set<std::tuple<ActionKind, int, int>> present;
    bool updates = false;
    for (const Action& action : schedule_.rows[worker_]) {
      present.emplace(action.kind, action.stage, action.micro_batch);
      updates = updates || action.kind == ActionKind::kOptimizer;
    }
    int first_stage = schedule_.stages;
    for (int stage = schedule_.stages - 1; stage >= 0; --stage) {
      if (schedule_.stage_worker[stage] != worker_) continue;
      first_stage = stage;
      for (int i = 0; i < schedule_.micro_batches; ++i) {
        const Action forward = AtGPipesCycle(ActionKind::kForward, stage, i);
        if (present.count({forward.kind, stage, i}) == 0) return Bad(forward, "this forward is missing");
        const Action backward = AtGPipesCycle(ActionKind::kBackward, stage, i);
        if (!transfers_.HasBackward(stage) || present.count({backward.kind, stage, i}) > 0) continue;
        return Bad(backward, "this backward is missing");
      }
    }
    const Action update{.stage = first_stage, .kind = ActionKind::kOptimizer, .cycle = schedule_.cycles - 1};
    return trains && !updates ? Bad(update, "the optimizer step is missing") : absl::OkStatus();
  }

  // A missing action where GPipe has it, so that the error can point at the place.
  Action AtGPipesCycle(ActionKind kind, int stage, int micro_batch) const {
    const int forward = stage + micro_batch;
    const int cycle = kind == ActionKind::kForward ? forward : std::max(0, schedule_.cycles - 2 - forward);
    return {.stage = stage, .kind = kind, .micro_batch = micro_batch, .cycle = cycle};
  }

  absl::Status Bad(const Action& action, const std::string& what) const {
    return Fault(schedule_, worker_, action, what);
  }

  const Schedule& schedule_;
  const Transfers& transfers_;
  const int worker_;
  int reduces_ = 0, updates_ = 0;
  std::set<Key> forward_, checkpointed_, recomputed_, backward_;
};

// Checks that one worker's row has exactly the messages that its edges mean, each on the right side of its work.
class MessageChecker {
 public:
  MessageChecker(const Schedule& schedule, const Transfers& transfers, int worker)
      : schedule_(schedule), transfers_(transfers), worker_(worker), row_(schedule.rows[worker]) {}

  absl::Status Check() {
    for (size_t i = 0; i < row_.size(); ++i) {
      const bool transfer = IsTransfer(row_[i].kind);
      auto& positions = transfer ? messages_ : work_;
      const int owner = transfer ? row_[i].edge : row_[i].stage;
      if (!positions.emplace(std::tuple(row_[i].kind, owner, row_[i].micro_batch), i).second) {
        return Bad(row_[i], "this transfer was done before");
      }
    }
    if (absl::Status status = CheckBoundaries(); !status.ok()) return status;
    for (const auto& message : messages_) {
      if (absl::Status status = CheckMessage(row_[message.second]); !status.ok()) return status;
    }
    for (size_t edge = 0; edge < transfers_.edges().size(); ++edge) {
      if (absl::Status status = CheckEdge(static_cast<int>(edge)); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  using Key = std::tuple<ActionKind, int, int>;  // Kind, edge (of a message) or stage (of work), micro-batch.

  // The work a message belongs to. REQUIRES: the row is complete.
  size_t WorkOf(ActionKind kind, int stage, int micro_batch) const {
    const bool forward = DirectionOf(kind) == Direction::kForward;
    const ActionKind work = forward ? ActionKind::kForward : ActionKind::kBackward;
    return work_.at({work, stage, micro_batch});
  }

  // Values of a micro-batch that cross the same boundary are one transfer to the workers.
  absl::Status CheckBoundaries() const {
    const std::vector<Edge>& edges = transfers_.edges();
    const std::optional<Action> apart = FindApart(edges, JoinTransfers(edges, row_));
    if (!apart) return absl::OkStatus();
    const Edge& edge = edges[apart->edge];
    return Bad(*apart,
               absl::StrCat("it is apart from other values between stages ", edge.from_stage, " and ", edge.to_stage));
  }

  absl::Status CheckMessage(const Action& action) const {
    const Edge& edge = transfers_.edges()[action.edge];
    if (StageOfTransfer(edge, action.kind) != action.stage) return Bad(action, "the edge does not do this here");
    if (!transfers_.Crosses(edge, action.kind)) return Bad(action, absl::StrCat("no such message of ", edge.value));
    const size_t position = messages_.at({action.kind, action.edge, action.micro_batch});
    const size_t work = WorkOf(action.kind, action.stage, action.micro_batch);
    if (IsSend(action.kind) && position < work) return Bad(action, "it is sent before it is made");
    if (IsReceive(action.kind) && position > work) return Bad(action, "it is received after it is used");
    return absl::OkStatus();
  }

  // That no message is missing.
  absl::Status CheckEdge(int index) const {
    const Edge& edge = transfers_.edges()[index];
    for (const KindTraits& traits : kKindTraits) {
      const ActionKind kind = traits.kind;
      if (!IsTransfer(kind) || !transfers_.Crosses(edge, kind)) continue;
      const int stage = StageOfTransfer(edge, kind);
      if (schedule_.stage_worker[stage] != worker_) continue;
      for (int i = 0; i < schedule_.micro_batches; ++i) {
        if (messages_.count({kind, index, i}) > 0) continue;
        const int cycle = row_[WorkOf(kind, stage, i)].cycle;
        const Action missing{.stage = stage, .kind = kind, .micro_batch = i, .cycle = cycle, .edge = index};
        return Bad(missing, absl::StrCat("this transfer of ", edge.value, " is missing"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Bad(const Action& action, const std::string& what) const {
    return Fault(schedule_, worker_, action, what);
  }

  const Schedule& schedule_;
  const Transfers& transfers_;
  const int worker_;
  const std::vector<Action>& row_;
  std::map<Key, size_t> work_, messages_;  // Position in the row.
};

// A receive gets the message it names. What either end needs of the other is done in its own cycle or before, so that
// lock-step can go on too.
absl::Status CheckTransfer(const Schedule& schedule, int worker, const Action& action, const Action& needed) {
  if (IsReceive(action.kind) && needed.micro_batch != action.micro_batch) {
    return Fault(schedule, worker, action, absl::StrCat("the channel brings ", ToString(needed)));
  }
  if (needed.cycle > action.cycle) {
    return Fault(schedule, worker, action, absl::StrCat(ToString(needed), " comes only in cycle ", needed.cycle));
  }
  return absl::OkStatus();
}

absl::Status CheckRunsToTheEnd(const Schedule& schedule, const std::vector<Edge>& edges) {
  Replay replay(schedule, edges);
  for (bool progress = true; progress;) {
    progress = false;
    for (int worker = 0; worker < replay.workers(); ++worker) {
      for (; replay.Ready(worker); progress = true) {
        if (const Replay::Event* needed = replay.Needed(worker)) {
          const absl::Status status = CheckTransfer(schedule, worker, replay.Next(worker), *needed->action);
          if (!status.ok()) return status;
        }
        replay.Take(worker);
      }
    }
  }
  for (int worker = 0; worker < replay.workers(); ++worker) {
    if (!replay.Done(worker)) return Fault(schedule, worker, replay.Next(worker), replay.Standstill());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateSchedule(const Schedule& schedule, const std::vector<Edge>& edges) {
  absl::Status status = CheckShape(schedule);
  if (status.ok()) status = CheckEdges(edges, schedule.stages);
  const int workers = static_cast<int>(schedule.rows.size());
  for (int worker = 0; worker < workers && status.ok(); ++worker) status = CheckPlaces(schedule, edges, worker);
  if (!status.ok()) return status;
  const Transfers transfers(edges, schedule);
  bool trains = false;
  for (int stage = 0; stage < schedule.stages; ++stage) trains = trains || transfers.HasBackward(stage);
  for (int worker = 0; worker < workers && status.ok(); ++worker) {
    status = WorkChecker(schedule, transfers, worker).Check(trains);
    if (status.ok()) status = MessageChecker(schedule, transfers, worker).Check();
  }
  return status.ok() ? CheckRunsToTheEnd(schedule, edges) : status;
}

}  // namespace gpipe::pipeline
