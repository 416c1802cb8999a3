#include "orchestrator/scheduling/asked_rounds.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/plan/convert.h"
#include "common/sha256.h"
#include "common/spec/client_data.h"
#include "common/status_macros.h"
#include "orchestrator/planning/lr_schedule.h"
#include "orchestrator/planning/programs.h"
#include "orchestrator/planning/statistics_check.h"
#include "pipeline/timeline.h"

namespace gpipe::orchestrator {
namespace {

using pipeline::RoundKind;

bool MayBeAsked(v1::RoundKind kind) { return kind >= v1::ROUND_KIND_FORWARD && v1::RoundKind_IsValid(kind); }

// REQUIRES: MayBeAsked.
RoundKind KindOf(const v1::AskedRound& asked) {
  v1::Round round;
  round.set_kind(asked.kind());
  return FromProto(round)->kind;
}

bool ReadsData(RoundKind kind) {
  return kind == RoundKind::kForward || kind == RoundKind::kPredict || kind == RoundKind::kBackward ||
         kind == RoundKind::kSetState;
}

bool IsOfState(RoundKind kind) { return kind == RoundKind::kGetState || kind == RoundKind::kSetState; }

bool EndsForward(RoundKind kind) { return kind == RoundKind::kBackward || kind == RoundKind::kDrop; }

bool BeginsBatch(RoundKind kind) { return kind == RoundKind::kForward || kind == RoundKind::kPredict; }

}  // namespace

AskedRounds::AskedRounds(const v1::JobSpec& spec, v1::Plan* plan)
    : spec_(spec), plan_(plan), told_programs_(plan->programs_size()) {}

absl::Status AskedRounds::Ask(const v1::AskedRound& asked) {
  GPIPE_RETURN_IF_ERROR(Check(asked));
  const RoundKind kind = KindOf(asked);
  const int64_t batch_size = kind == RoundKind::kBackward ? forwards_.at(asked.forward())
                             : BeginsBatch(kind)          ? asked.batch_size()
                                                          : 0;
  if (kind == RoundKind::kForward) GPIPE_RETURN_IF_ERROR(CheckTrains(batch_size));
  v1::Round round = RoundOf(asked, batch_size);
  if (!pipeline::ComputesNothing(kind)) {
    GPIPE_ASSIGN_OR_RETURN(const int program, ProgramOf(ProgramKindOf(kind), batch_size));
    round.set_program(program);
  }
  if (EndsForward(kind)) forwards_.erase(asked.forward());
  if (kind == RoundKind::kForward) forwards_[asked_] = batch_size;
  waiting_.push_back(std::move(round));
  ++asked_;
  return absl::OkStatus();
}

absl::Status AskedRounds::Check(const v1::AskedRound& asked) const {
  if (closed_) return absl::FailedPreconditionError("the end of the rounds was said before");
  if (!MayBeAsked(asked.kind())) return FieldError("round.kind", "is none that a client may ask for");
  const RoundKind kind = KindOf(asked);
  if (waiting_.size() >= kMaxWaiting || (kind == RoundKind::kForward && forwards_.size() >= kMaxOpenForwards)) {
    return WithReason(absl::ResourceExhaustedError("too many rounds are open"), reason::kOverloaded);
  }
  if (BeginsBatch(kind) && asked.batch_size() < 1) return FieldError("round.batch_size", "must be positive");
  if (EndsForward(kind) && !forwards_.contains(asked.forward())) {
    return FieldError("round.forward", absl::StrCat(asked.forward(), " is no forward pass that is open"));
  }
  if (!std::isfinite(asked.learning_rate()) || asked.learning_rate() < 0) {
    return FieldError("round.learning_rate", "must be a number that is not negative");
  }
  if (IsOfState(kind) && (asked.state() == v1::STATE_KIND_UNSPECIFIED || !v1::StateKind_IsValid(asked.state()))) {
    return FieldError("round.state", "must say of what: values, gradients or the optimizer");
  }
  return CheckData(asked);
}

absl::Status AskedRounds::CheckData(const v1::AskedRound& asked) const {
  if (!ReadsData(KindOf(asked))) {
    return asked.has_data() ? FieldError("round.data", "has no use in such a round") : absl::OkStatus();
  }
  const v1::ArtifactRef& data = asked.data();
  if (data.shared_path().empty()) {
    return IsSha256(data.sha256()) && data.size() >= 0 ? absl::OkStatus()
                                                       : FieldError("round.data.sha256", "names no file");
  }
  const std::string& folder = spec_.train().dataset().client().exchange();
  if (spec::IsInExchangeFolder(folder, data.shared_path())) return absl::OkStatus();
  return FieldError("round.data.shared_path", "is not in the job's exchange folder");
}

v1::Round AskedRounds::RoundOf(const v1::AskedRound& asked, int64_t batch_size) const {
  v1::Round round;
  round.set_index(asked_);
  round.set_kind(asked.kind());
  round.set_step(asked_);  // Each forward pass draws other random numbers.
  round.set_batch_size(batch_size);
  round.set_program(-1);
  round.set_forward(asked.forward());
  round.set_state(asked.state());
  if (asked.has_data()) *round.mutable_data() = asked.data();
  if (asked.kind() != v1::ROUND_KIND_UPDATE) return round;
  const double own = LearningRate(spec_.train(), spec_.train().lr_schedule(), 0, 0);
  round.set_learning_rate(asked.has_learning_rate() ? asked.learning_rate() : own);
  return round;
}

// A prediction may have had mini-batches of a size that is too small to train on.
absl::Status AskedRounds::CheckTrains(int64_t batch_size) {
  if (trained_sizes_.contains(batch_size)) return absl::OkStatus();
  const std::vector<v1::LayerInfo> layers(plan_->layers().begin(), plan_->layers().end());
  GPIPE_RETURN_IF_ERROR(CheckStatistics(spec_, batch_size, layers));
  trained_sizes_.insert(batch_size);
  return absl::OkStatus();
}

int AskedRounds::Find(v1::ProgramKind kind, int64_t batch_size) const {
  for (int i = 0; i < plan_->programs_size(); ++i) {
    if (plan_->programs(i).kind() == kind && plan_->programs(i).batch_size() == batch_size) return i;
  }
  return -1;
}

absl::StatusOr<int> AskedRounds::ProgramOf(v1::ProgramKind kind, int64_t batch_size) {
  if (const int known = Find(kind, batch_size); known >= 0) return known;
  if (sizes_ >= kMaxSizes) {
    return absl::ResourceExhaustedError(absl::StrCat("mini-batches of more than ", kMaxSizes, " sizes"));
  }
  GPIPE_RETURN_IF_ERROR(AddClientPrograms(spec_, batch_size, *plan_));
  ++sizes_;
  return Find(kind, batch_size);
}

void AskedRounds::Close() {
  if (std::exchange(closed_, true)) return;
  v1::Round store;
  store.set_index(asked_);
  store.set_kind(v1::ROUND_KIND_STORE_MODEL);
  store.set_program(-1);
  waiting_.push_back(std::move(store));
}

std::optional<v1::Round> AskedRounds::Next() {
  if (waiting_.empty()) return std::nullopt;
  v1::Round round = std::move(waiting_.front());
  waiting_.pop_front();
  return round;
}

std::vector<int> AskedRounds::TakeNewPrograms() {
  std::vector<int> fresh;
  for (; told_programs_ < plan_->programs_size(); ++told_programs_) fresh.push_back(told_programs_);
  return fresh;
}

}  // namespace gpipe::orchestrator
