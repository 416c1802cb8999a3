// The half of an attempt that decides what failed first, and watches for stalls.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/grpc_status.h"
#include "common/plan/shape.h"
#include "common/printable.h"
#include "common/string_view.h"
#include "orchestrator/scheduling/attempt.h"
#include "orchestrator/scheduling/failure.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

// So many times in a lease it is looked whether anything moves: what stalls is to be known soon after a lease.
constexpr int kStallLooks = 4;

}  // namespace

// What the worker last said it was doing, unless that was about another attempt.
v1::Activity Attempt::ActivityOf(int index) const {
  const WorkerEntry* worker = cluster_->registry().Find(members_[index].name);
  if (worker != nullptr && SameAttempt(worker->activity.attempt(), setup_.id)) return worker->activity;
  v1::Activity unknown;
  *unknown.mutable_attempt() = setup_.id;
  unknown.set_phase(v1::PHASE_PREPARING);
  unknown.set_stage(-1);
  unknown.set_step(-1);
  unknown.set_micro_batch(-1);
  return unknown;
}

v1::Failure Attempt::FailureOf(int index, std::string_view code, std::string_view what, std::string_view why) const {
  const v1::Activity activity = ActivityOf(index);
  const auto& hosts = setup_.plan.stage_worker();
  const int named = activity.stage();
  const bool own = named >= 0 && named < hosts.size() && hosts.Get(named) == index;
  const int first = static_cast<int>(std::find(hosts.begin(), hosts.end(), index) - hosts.begin());
  return WorkerFailure(code, members_[index].name, own ? named : first, activity, what, why);
}

void Attempt::OnFailed(int index, const v1::Failed& failed) {
  const absl::Status status = FromProto(failed.status());
  const v1::Failure failure = FailureOf(index, FailureCode(status), "failed", Printable(StdView(status.message())));
  members_[index].failed = true;
  if (phase_ == Phase::kPreparing) reach_reports_.Add(index, failed, static_cast<int>(members_.size()));
  if (!failed.consequence() && !reach_reports_.certain()) return Fail(failure);
  Suspect(failure);
  JudgeReachIfAllSaid();
}

void Attempt::JudgeReachIfAllSaid() {
  if (reach_reports_.empty() || phase_ != Phase::kPreparing) return;
  const auto has_said = [](const Member& member) { return member.failed || member.gone || member.released; };
  if (reach_reports_.certain() || std::ranges::all_of(members_, has_said)) JudgeReach();
}

void Attempt::JudgeReach() {
  unreachable_ = reach_reports_.Judge(UnreachableReports::FromRegistry(cluster_->registry(), setup_.workers));
  std::vector<v1::Failure> failures;
  for (const UnreachableWorker& worker : unreachable_) {
    failures.push_back(FailureOf(worker.index, "WORKER_UNREACHABLE", "is unreachable", worker.why));
  }
  for (size_t i = 1; i < failures.size(); ++i) failures[0].add_consequences(failures[i].message());
  Fail(failures[0]);
}

void Attempt::SetReached() {
  if (members_.size() == 1) return;
  for (const Member& member : members_) cluster_->registry().SetReached(member.name);
}

// A broken connection is somebody else's failure: that one is waited for, until its lease must have run out.
void Attempt::Suspect(const v1::Failure& consequence) {
  if (phase_ == Phase::kFailing) {
    cause_.add_consequences(consequence.message());
    return;
  }
  if (phase_ == Phase::kOver || phase_ == Phase::kFinished) return;
  if (suspect_.has_value()) {
    suspect_->add_consequences(consequence.message());
    return;
  }
  suspect_ = consequence;
  loop_->CancelTimer(deadline_timer_);
  deadline_timer_ = loop_->PostAfter(cluster_->options().lease + absl::Seconds(1), [this] {
    if (!reach_reports_.empty() && phase_ == Phase::kPreparing) return JudgeReach();
    const v1::Failure cause = *suspect_;
    suspect_.reset();
    Fail(cause);
  });
}

void Attempt::OnLost(WorkerEntry& worker, std::string_view why) {
  const int index = IndexOf(worker.name());
  const bool needed = !IsDone(members_[index]);
  members_[index].gone = true;
  if (needed) {
    interrupted_ |= phase_ != Phase::kFailing && cluster_->JustWoke();
    if (members_[index].leaves.has_value()) {
      FailLeft(index, why);
    } else {
      Fail(FailureOf(index, "WORKER_LOST", "was lost", why));
    }
  }
  ConcludeIfSettled();
}

// A worker that has done its part may go as soon as the others have received it; one that has not, when what the job
// has done so far is saved. How long it stays for that is its own decision.
void Attempt::OnLeaving(WorkerEntry& worker, std::string_view reason) {
  const int index = IndexOf(worker.name());
  members_[index].leaves = reason;
  if (members_[index].result.has_value()) return LetLeave();
  if (!SaveForLeaver()) FailLeft(index, "");
}

bool Attempt::SaveForLeaver() {
  if (phase_ != Phase::kRunning || paused_ || held_) return false;
  leave_step_ = source_->AddCheckpoint(RoundSource::Then::kStop);
  if (!leave_step_.has_value()) return source_->over() || (setup_.spec.has_train() && asked_ == nullptr);
  SendGrants();
  return saved_step_ < *leave_step_;
}

void Attempt::OnSaved(int64_t step) {
  saved_step_ = std::max(saved_step_, step);
  if (!leave_step_.has_value() || saved_step_ < *leave_step_) return;
  if (const std::optional<int> leaver = Leaver()) FailLeft(*leaver, absl::StrCat("step ", saved_step_, " is saved"));
}

std::optional<int> Attempt::Leaver() const {
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].leaves.has_value() && !members_[i].gone) return static_cast<int>(i);
  }
  return std::nullopt;
}

void Attempt::FailLeft(int index, std::string_view why) {
  const std::string& reason = *members_[index].leaves;
  Fail(FailureOf(index, "WORKER_LEFT", "left", why.empty() ? reason : absl::StrCat(reason, "; ", AbslView(why))));
}

void Attempt::LetLeave() {
  if (!window_.all_done()) return;
  for (Member& member : members_) {
    if (!member.leaves.has_value() || member.gone || !IsDone(member)) continue;
    member.gone = true;
    cluster_->GrantLeave(*cluster_->registry().Find(member.name));
  }
}

void Attempt::OnReleased(int index) {
  const bool expected = phase_ == Phase::kFailing || phase_ == Phase::kOver || suspect_.has_value();
  if (!expected) Fail(FailureOf(index, "INTERNAL", "failed", "it let go of the job by itself"));
  members_[index].released = true;
  ConcludeIfSettled();
}

void Attempt::Fail(const v1::Failure& cause) {
  if (phase_ == Phase::kOver) return;
  if (phase_ == Phase::kFailing) {
    cause_.add_consequences(cause.message());
    return;
  }
  // A checkpoint that has no room, and was only for whoever leaves, must not cost the job.
  const std::optional<int> leaver = leave_step_.has_value() ? Leaver() : std::nullopt;
  if (leaver.has_value() && cause.code() == kDiskFull) return FailLeft(*leaver, cause.message());
  phase_ = Phase::kFailing;
  CancelTimers();
  cause_ = cause;
  if (suspect_.has_value()) {
    cause_.add_consequences(suspect_->message());
    cause_.mutable_consequences()->MergeFrom(suspect_->consequences());
  }
  AbortAll(cause.message());
  deadline_timer_ = loop_->PostAfter(kConsequenceTimeout, [this] { Conclude(); });
}

void Attempt::AbortAll(std::string_view reason) {
  for (const Member& member : members_) {
    WorkerEntry* worker = cluster_->registry().Find(member.name);
    if (worker != nullptr && !member.gone) cluster_->Abort(*worker, setup_.id, reason);
  }
}

void Attempt::ConcludeIfSettled() {
  if (phase_ != Phase::kFailing) return;
  const bool settled =
      std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.gone || m.released; });
  if (settled) Conclude();
}

void Attempt::Conclude() {
  phase_ = Phase::kOver;
  CancelTimers();
  if (interrupted_) return host_->OnInterrupted(*this);
  if (!unreachable_.empty()) return host_->OnUnreachable(*this, cause_, unreachable_);
  host_->OnFailed(*this, cause_);
}

void Attempt::Abort(std::string_view reason) {
  phase_ = Phase::kOver;
  CancelTimers();
  AbortAll(reason);
}

void Attempt::CancelTimers() {
  loop_->CancelTimer(deadline_timer_);
  loop_->CancelTimer(stall_timer_);
  loop_->CancelTimer(begin_timer_);
}

void Attempt::WatchForStall() {
  int64_t ticks = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    std::optional<Position> done = window_.done(static_cast<int>(i));
    if (done.has_value()) ticks += window_.TickOf(*done).value_or(0) + 1;
  }
  const bool moved = ticks != stall_ticks_ || paused_ || held_ || window_.idle();
  const absl::Duration interval = cluster_->options().lease / kStallLooks;
  still_ = moved ? absl::ZeroDuration() : still_ + interval;
  stalled_ = moved || !AllWait() ? absl::ZeroDuration() : stalled_ + interval;
  if (moved) stall_logged_ = false;
  if (still_ >= cluster_->options().lease && !std::exchange(stall_logged_, true)) LogStall();
  stall_ticks_ = ticks;
  if (stalled_ > absl::ZeroDuration() && stalled_ >= StallTimeout()) {
    return Fail(FailureOf(
        0, "STALLED", "failed",
        absl::StrCat("nothing moves between the workers: ", DescribeWaits(), "; is the network between them cut?")));
  }
  stall_timer_ = loop_->PostAfter(interval, [this] { WatchForStall(); });
}

bool Attempt::AllWait() const {
  bool any = false;
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].gone || members_[i].result.has_value()) continue;
    if (!ActivityOf(static_cast<int>(i)).has_waits_for()) return false;
    any = true;
  }
  return any;
}

std::string Attempt::DescribeWaits() const {
  std::vector<std::string> waits;
  for (size_t i = 0; i < members_.size(); ++i) {
    const v1::Activity activity = ActivityOf(static_cast<int>(i));
    if (!activity.has_waits_for()) continue;
    const bool named = activity.waits_for() >= 0 && activity.waits_for() < static_cast<int>(members_.size());
    waits.push_back(
        absl::StrCat(members_[i].name, " waits for ", named ? members_[activity.waits_for()].name : "all others"));
  }
  return absl::StrJoin(waits, ", ");
}

absl::Duration Attempt::StallTimeout() const {
  constexpr double kSlowBytesPerSecond = 10e6;
  int64_t most = 0;
  for (const v1::Program& program : setup_.plan.programs()) {
    for (const int64_t samples : program.micro_batch_sizes()) {
      for (const auto* edges : {&setup_.plan.edges(), &setup_.plan.evaluation_edges()}) {
        for (const v1::Edge& edge : *edges) most = std::max(most, BytesFor(edge.shape(), edge.dtype(), samples));
      }
    }
  }
  return 1.5 * cluster_->options().lease + absl::Seconds(static_cast<double>(most) / kSlowBytesPerSecond);
}

void Attempt::LogStall() const {
  const Position granted = window_.granted().value_or(Position{.round = -1, .cycle = -1});
  std::string table = absl::StrFormat("nothing moved in %s for %s; granted up to round %d cycle %d\n", setup_.id.job(),
                                      absl::FormatDuration(cluster_->options().lease), granted.round, granted.cycle);
  absl::StrAppendFormat(&table, "%-20s %10s %6s  %s", "worker", "round", "cycle", "doing");
  for (size_t i = 0; i < members_.size(); ++i) {
    const Position done = window_.done(static_cast<int>(i)).value_or(Position{.round = -1, .cycle = -1});
    absl::StrAppendFormat(&table, "\n%-20s %10d %6d  %s", members_[i].name, done.round, done.cycle,
                          Doing(ActivityOf(static_cast<int>(i))));
  }
  spdlog::warn("{}", table);
}

}  // namespace gpipe::orchestrator
