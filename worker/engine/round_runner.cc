#include "worker/engine/round_runner.h"

#include <utility>

#include "common/status_macros.h"
#include "worker/comm/meeting.h"

namespace gpipe::worker {
namespace {

// Receives are posted for this many compute actions to come: the one that is about to run, and one more.
constexpr int kComputeAhead = 2;

}  // namespace

absl::Status RoundRunner::Run(const Hooks& hooks) {
  while (true) {
    GPIPE_ASSIGN_OR_RETURN(const std::optional<RoundPlan> plan, Next());
    if (!plan) break;
    const bool computes = !pipeline::ComputesNothing(plan->round.kind);
    GPIPE_RETURN_IF_ERROR(computes ? RunRound(*plan, hooks) : RunHook(*plan, hooks));
  }
  GPIPE_RETURN_IF_ERROR(parts_.trace.Finish());
  return parts_.ledger.Flush();
}

absl::Status RoundRunner::RunRound(const RoundPlan& plan, const Hooks& hooks) {
  GPIPE_RETURN_IF_ERROR(Admit(plan, 0));
  GPIPE_RETURN_IF_ERROR(parts_.trace.BeginRound(plan.round.index));
  RoundRecord& record = parts_.ledger.Begin(plan);
  GPIPE_ASSIGN_OR_RETURN(Batch batch, ReadData(plan, hooks, record));
  GPIPE_RETURN_IF_ERROR(parts_.executor.Begin(plan, std::move(batch), record));
  GPIPE_RETURN_IF_ERROR(RunActions(plan));
  GPIPE_RETURN_IF_ERROR(parts_.executor.End());
  if (plan.training()) GPIPE_RETURN_IF_ERROR(parts_.transfers.FinishSends());
  GPIPE_RETURN_IF_ERROR(Admit(plan, plan.program->cycles - 1));
  // Before it is booked: who has booked the last round is done, and not needed by the others any more. A job's last
  // round is told together with the word that it is.
  if (!peeked_ && parts_.rounds.count()) GPIPE_RETURN_IF_ERROR(Meet());
  record.traffic = parts_.transfers.TakeTraffic();
  return parts_.ledger.End();
}

absl::StatusOr<Batch> RoundRunner::ReadData(const RoundPlan& plan, const Hooks& hooks, RoundRecord& record) {
  if (plan.asked()) return hooks.read_asked(plan);
  if (parts_.data == nullptr) return Batch();
  const TracedAction traced("DATA");
  GPIPE_ASSIGN_OR_RETURN(ReadAhead::Taken taken, parts_.data->Take(plan.round));
  record.data_wait_nanos = absl::ToInt64Nanoseconds(taken.waited);
  return std::move(taken.batch);
}

absl::Status RoundRunner::RunActions(const RoundPlan& plan) {
  int admitted = 0;
  const std::vector<Step>& row = plan.program->row;
  for (size_t i = 0; i < row.size(); ++i) {
    GPIPE_RETURN_IF_ERROR(PostReceives(plan, i));
    if (const int cycle = row[i].action.cycle; cycle > admitted) {
      GPIPE_RETURN_IF_ERROR(Admit(plan, cycle));
      admitted = cycle;
    }
    GPIPE_RETURN_IF_ERROR(parts_.executor.Execute(row[i]));
  }
  return absl::OkStatus();
}

absl::Status RoundRunner::Meet() {
  GPIPE_RETURN_IF_ERROR(parts_.transfers.FinishSends());
  const ActivityTracker::Wait waiting(parts_.activity, ActivityTracker::Wait::kAll);
  return worker::Meet(parts_.communicator, parts_.device);
}

absl::Status RoundRunner::RunHook(const RoundPlan& plan, const Hooks& hooks) {
  GPIPE_RETURN_IF_ERROR(Admit(plan, 0));
  GPIPE_RETURN_IF_ERROR(parts_.trace.BeginRound(plan.round.index));
  // Else a part could be announced that its worker's end makes the others miss.
  if (!plan.asked()) GPIPE_RETURN_IF_ERROR(Meet());
  GPIPE_RETURN_IF_ERROR(parts_.ledger.Flush());
  RoundRecord& record = parts_.ledger.Begin(plan);
  GPIPE_RETURN_IF_ERROR(CallHook(plan, hooks, record));
  return parts_.ledger.End();
}

absl::Status RoundRunner::CallHook(const RoundPlan& plan, const Hooks& hooks, RoundRecord& record) {
  if (plan.round.kind == pipeline::RoundKind::kCheckpoint) return hooks.save_checkpoint(plan.round.step);
  if (plan.round.kind == pipeline::RoundKind::kStoreModel) return hooks.store_model();
  GPIPE_ASSIGN_OR_RETURN(record.result, hooks.asked(plan));
  return absl::OkStatus();
}

absl::Status RoundRunner::Admit(const RoundPlan& plan, int cycle) {
  return parts_.gate.Wait({plan.round.index, cycle},
                          [this](Position complete) { return parts_.ledger.Report(complete); });
}

absl::Status RoundRunner::PostReceives(const RoundPlan& plan, size_t position) {
  const Step& step = plan.program->row[position];
  if (!parts_.transfers.may_post_early()) {
    return pipeline::IsReceive(step.action.kind) ? Post(plan, step, parts_.executor.RoomFor(step)) : absl::OkStatus();
  }
  int ahead = kComputeAhead;
  GPIPE_RETURN_IF_ERROR(PostFrom(plan, posted_, position, ahead));
  if (ahead == 0 || !peeked_ || !plan.streams() || peeked_->round.kind != plan.round.kind) return absl::OkStatus();
  return PostFrom(*peeked_, posted_next_, 0, ahead);
}

absl::Status RoundRunner::PostFrom(const RoundPlan& plan, size_t& posted, size_t position, int& ahead) {
  const std::vector<Step>& row = plan.program->row;
  for (size_t i = position; i < row.size() && ahead > 0; ++i) {
    if (pipeline::IsCompute(row[i].action.kind)) --ahead;
    if (i < posted) continue;
    if (pipeline::IsReceive(row[i].action.kind)) GPIPE_RETURN_IF_ERROR(Post(plan, row[i], {}));
    posted = i + 1;
  }
  return absl::OkStatus();
}

absl::Status RoundRunner::Post(const RoundPlan& plan, const Step& step, at::TensorList room) {
  return parts_.transfers.PostReceive(step, plan.program->micro_batch_sizes[step.action.micro_batch], room);
}

absl::StatusOr<std::optional<RoundPlan>> RoundRunner::Next() {
  std::optional<RoundPlan> next = std::exchange(peeked_, std::nullopt);
  posted_ = std::exchange(posted_next_, 0);
  if (!next) {
    // Who asked for the last round waits for what it made.
    GPIPE_RETURN_IF_ERROR(parts_.ledger.Flush());
    GPIPE_ASSIGN_OR_RETURN(next, Find(parts_.rounds.Next(RoundFeed::Walker::kEngine)));
  }
  GPIPE_ASSIGN_OR_RETURN(peeked_, Find(parts_.rounds.TryNext(RoundFeed::Walker::kEngine)));
  return next;
}

absl::StatusOr<std::optional<RoundPlan>> RoundRunner::Find(const absl::StatusOr<std::optional<v1::Round>>& told) {
  GPIPE_RETURN_IF_ERROR(told.status());
  if (!told->has_value()) return std::nullopt;
  GPIPE_RETURN_IF_ERROR(parts_.programs.Add(parts_.rounds.TakePrograms()));
  GPIPE_ASSIGN_OR_RETURN(RoundPlan plan, parts_.programs.Find(**told));
  return plan;
}

}  // namespace gpipe::worker
