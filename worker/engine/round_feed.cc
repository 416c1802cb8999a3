#include "worker/engine/round_feed.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/plan/convert.h"
#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

absl::Status CheckRound(const v1::Round& round, int64_t index) {
  const std::string name = absl::StrCat("round ", round.index());
  if (round.index() != index) return absl::InternalError(absl::StrCat(name, " was told instead of ", index));
  const std::optional<pipeline::Round> known = FromProto(round);
  if (!known) return absl::InternalError(absl::StrCat(name, " is of an unknown kind (", round.kind(), ")"));
  if (round.step() < 0 || round.epoch() < 0 || round.first_sample() < 0) {
    return absl::InternalError(absl::StrCat(name, " has a negative step, epoch or first sample"));
  }
  if (!pipeline::TraitsOf(known->kind).batch || round.batch_size() >= 1) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(name, " has no samples"));
}

}  // namespace

void RoundFeed::Tell(const v1::Rounds& rounds) {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = Check(rounds); !status.ok()) {
    if (aborted_.ok()) aborted_ = std::move(status);
    return;
  }
  rounds_.insert(rounds_.end(), rounds.rounds().begin(), rounds.rounds().end());
  programs_.MergeFrom(rounds.programs());
  end_ += rounds.rounds_size();
  complete_ |= rounds.complete();
  Forget();
}

absl::Status RoundFeed::Check(const v1::Rounds& rounds) const {
  if (complete_ && !rounds.rounds().empty()) {
    return absl::InternalError(absl::StrCat("a round was told behind the last, which is ", end_ - 1));
  }
  if (rounds_.size() + rounds.rounds_size() > kMost) {
    return absl::InternalError(absl::StrCat("more than ", kMost, " rounds were told ahead"));
  }
  int64_t index = end_;
  for (const v1::Round& round : rounds.rounds()) GPIPE_RETURN_IF_ERROR(CheckRound(round, index++));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::Round>> RoundFeed::Next(Walker walker) {
  absl::MutexLock lock(&mutex_);
  int64_t& position = positions_[static_cast<size_t>(walker)];
  auto known = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return Knows(position); };
  mutex_.Await(absl::Condition(&known));
  return TakeNext(walker);
}

absl::StatusOr<std::optional<v1::Round>> RoundFeed::TryNext(Walker walker) {
  absl::MutexLock lock(&mutex_);
  return TakeNext(walker);
}

google::protobuf::RepeatedPtrField<v1::Program> RoundFeed::TakePrograms() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(programs_, {});
}

absl::StatusOr<std::optional<v1::Round>> RoundFeed::TakeNext(Walker walker) {
  int64_t& position = positions_[static_cast<size_t>(walker)];
  if (!aborted_.ok()) return aborted_;
  if (position == kGone || position == end_) return std::nullopt;
  v1::Round round = rounds_[rounds_.size() - static_cast<size_t>(end_ - position)];
  ++position;
  Forget();
  return round;
}

void RoundFeed::Leave(Walker walker) {
  absl::MutexLock lock(&mutex_);
  positions_[static_cast<size_t>(walker)] = kGone;
  Forget();
}

void RoundFeed::Forget() {
  int64_t least = end_;
  for (const int64_t position : positions_) {
    if (position != kGone) least = std::min(least, position);
  }
  while (std::cmp_greater(rounds_.size(), end_ - least)) rounds_.pop_front();
}

std::optional<int64_t> RoundFeed::count() const {
  absl::MutexLock lock(&mutex_);
  return complete_ ? std::optional(end_) : std::nullopt;
}

void RoundFeed::Abort(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (aborted_.ok()) aborted_ = reason;
}

}  // namespace gpipe::worker
