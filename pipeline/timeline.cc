#include "pipeline/timeline.h"

#include <algorithm>

namespace gpipe::pipeline {

int64_t StepsPerEpoch(int64_t samples, int64_t batch_size, bool drop_last) {
  return samples / batch_size + (!drop_last && samples % batch_size != 0 ? 1 : 0);
}

RoundCursor::RoundCursor(const TimelineSpec& spec)
    : spec_(spec), step_(spec.first_step), loss_checks_(spec.check_loss_samples > 0 ? kLossCheckRounds : 0) {}

bool RoundCursor::trains_next() const {
  return step_ < spec_.steps && loss_checks_ == 0 && !store_due_ && !evaluation_due_ && !checkpoint_due_;
}

std::optional<Round> RoundCursor::Next() {
  std::optional<Round> round;
  if (spec_.steps == 0) {
    round = NextInfer();
  } else if (loss_checks_ > 0) {
    round = NextCheckLoss();
  } else if (store_due_) {
    store_due_ = false;
    round = Round{.kind = RoundKind::kStoreModel, .step = step_};
  } else if (evaluation_due_) {
    round = NextEvaluate();
  } else if (checkpoint_due_) {
    checkpoint_due_ = false;
    round = Round{.kind = RoundKind::kCheckpoint, .step = step_};
  } else {
    round = NextTrain();
  }
  if (round.has_value()) round->index = index_++;
  return round;
}

// The first samples, as many behind them, and both together.
Round RoundCursor::NextCheckLoss() {
  const int64_t samples = spec_.check_loss_samples;
  Round round{.kind = RoundKind::kCheckLoss, .step = step_, .batch_size = samples};
  if (loss_checks_ == 2) round.first_sample = samples;
  if (loss_checks_ == 1) round.batch_size = 2 * samples;
  round.last_of_kind = --loss_checks_ == 0;
  return round;
}

std::optional<Round> RoundCursor::NextTrain() {
  if (step_ >= spec_.steps) return std::nullopt;
  const int64_t per_epoch = StepsPerEpoch(spec_.samples, spec_.batch_size, spec_.drop_last);
  Round round{.kind = RoundKind::kTrain, .step = step_, .epoch = step_ / per_epoch};
  round.first_sample = step_ % per_epoch * spec_.batch_size;
  round.batch_size = std::min(spec_.batch_size, spec_.samples - round.first_sample);

  ++step_;
  checkpoint_due_ = spec_.checkpoint_every > 0 && step_ % spec_.checkpoint_every == 0;
  const bool evaluate_now = spec_.evaluate_every > 0 && step_ % spec_.evaluate_every == 0;
  evaluation_due_ = spec_.evaluation_samples > 0 && (evaluate_now || step_ == spec_.steps);
  evaluation_position_ = 0;
  store_due_ = evaluation_due_ && step_ == spec_.steps;
  return round;
}

std::optional<Round> RoundCursor::NextEvaluate() {
  Round round{.kind = RoundKind::kEvaluate, .step = step_, .first_sample = evaluation_position_};
  round.batch_size = std::min(spec_.batch_size, spec_.evaluation_samples - evaluation_position_);
  evaluation_position_ += round.batch_size;
  round.last_of_kind = evaluation_position_ == spec_.evaluation_samples;
  evaluation_due_ = !round.last_of_kind;
  return round;
}

std::optional<Round> RoundCursor::NextInfer() {
  if (infer_position_ >= spec_.samples) return std::nullopt;
  Round round{.kind = RoundKind::kInfer, .first_sample = infer_position_};
  round.batch_size = std::min(spec_.batch_size, spec_.samples - infer_position_);
  infer_position_ += round.batch_size;
  round.last_of_kind = infer_position_ == spec_.samples;
  return round;
}

int64_t CountRounds(const TimelineSpec& spec) {
  if (spec.steps == 0) return StepsPerEpoch(spec.samples, spec.batch_size, /*drop_last=*/false);
  if (spec.first_step >= spec.steps) return 0;
  // Multiples of `every` among the steps that are still to come.
  const auto due = [&](int64_t every) { return every > 0 ? spec.steps / every - spec.first_step / every : 0; };
  const int64_t steps = spec.steps - spec.first_step;
  int64_t evaluations = due(spec.evaluate_every);
  const bool last_is_due = spec.evaluate_every > 0 && spec.steps % spec.evaluate_every == 0;
  if (!last_is_due) ++evaluations;
  const int64_t per_evaluation = StepsPerEpoch(spec.evaluation_samples, spec.batch_size, /*drop_last=*/false);
  const int64_t checks = spec.check_loss_samples > 0 ? kLossCheckRounds : 0;
  const int64_t stores = spec.evaluation_samples > 0 ? 1 : 0;
  return checks + steps + stores + due(spec.checkpoint_every) + evaluations * per_evaluation;
}

}  // namespace gpipe::pipeline
