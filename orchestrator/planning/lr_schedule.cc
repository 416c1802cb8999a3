#include "orchestrator/planning/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace gpipe::orchestrator {
namespace {

double BaseRate(const v1::Optimizer& optimizer) {
  if (optimizer.has_sgd()) return optimizer.sgd().lr();
  return optimizer.has_adam() ? optimizer.adam().lr() : optimizer.adamw().lr();
}

double Warmup(double base, const v1::WarmupLr& spec, int64_t step) {
  return base * static_cast<double>(step + 1) / static_cast<double>(spec.warmup_steps());
}

// How much of the way down is done: 0 at the first step after the warm-up, 1 at the last step of the job.
double DecayShare(const v1::WarmupLr& spec, int64_t step, int64_t total_steps) {
  const int64_t length = std::max<int64_t>(1, total_steps - 1 - spec.warmup_steps());
  return std::min(1.0, static_cast<double>(step - spec.warmup_steps()) / static_cast<double>(length));
}

}  // namespace

double LearningRate(const v1::Train& train, const v1::LrSchedule& schedule, int64_t step, int64_t total_steps) {
  const double base = BaseRate(train.optimizer());
  if (schedule.has_step()) {
    return base * std::pow(schedule.step().gamma(), static_cast<double>(step / schedule.step().step_size()));
  }
  if (!schedule.has_warmup_cosine() && !schedule.has_warmup_linear()) return base;
  const v1::WarmupLr& spec = schedule.has_warmup_cosine() ? schedule.warmup_cosine() : schedule.warmup_linear();
  if (step < spec.warmup_steps()) return Warmup(base, spec, step);
  const double share = DecayShare(spec, step, total_steps);
  if (schedule.has_warmup_linear()) return base + (spec.final_lr() - base) * share;
  return spec.final_lr() + (base - spec.final_lr()) * (1 + std::cos(std::numbers::pi * share)) / 2;
}

}  // namespace gpipe::orchestrator
