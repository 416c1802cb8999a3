#include "orchestrator/scheduling/step_collector.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::orchestrator {

StepCollector::StepCollector(const v1::Plan& plan, int workers)
    : plan_(plan), workers_(workers), last_round_(workers, -1) {}

absl::StatusOr<std::optional<v1::StepMetrics>> StepCollector::Add(int worker, const v1::RoundDone& round) {
  GPIPE_RETURN_IF_ERROR(Check(worker, round));
  last_round_[worker] = round.round();
  Partial& partial = PartialOf(round.round());
  Merge(round, partial);
  if (++partial.reports < workers_) return std::nullopt;
  v1::StepMetrics metrics = Finish(partial);
  partials_.erase(round.round());
  // Checkpoint and evaluation rounds are no steps; they have neither a learning rate nor, in training, samples of their
  // own. A step that was left out in fp16 may have no loss.
  const bool training = plan_.timeline().steps() > 0;
  if (training && !metrics.has_loss() && !metrics.has_lr()) return std::nullopt;
  if (!training) metrics.set_step(round.round() + 1);
  return metrics;
}

absl::Status StepCollector::Check(int worker, const v1::RoundDone& round) const {
  if (round.round() <= last_round_[worker]) {
    return absl::InvalidArgumentError(absl::StrCat("round ", round.round(), " was reported before"));
  }
  const v1::Timeline& timeline = plan_.timeline();
  if (timeline.steps() > 0 && (round.step() < timeline.first_step() || round.step() > timeline.steps())) {
    return absl::InvalidArgumentError(absl::StrCat("there is no step ", round.step(), " of ", timeline.steps()));
  }
  if (round.samples() > MostSamples()) {
    return absl::InvalidArgumentError(absl::StrCat("no mini-batch has ", round.samples(), " samples"));
  }
  for (const v1::StageReport& report : round.stages()) {
    const int stage = report.stage();
    if (stage < 0 || stage >= plan_.stages_size() || plan_.stage_worker(stage) != worker) {
      return absl::InvalidArgumentError(absl::StrCat("stage ", stage, " is not this worker's"));
    }
    const int squares = report.layer_grad_squares_size();
    if (squares != 0 && squares != plan_.stages(stage).layer_count()) {
      return absl::InvalidArgumentError(absl::StrCat("stage ", stage, " has not ", squares, " layers"));
    }
  }
  return absl::OkStatus();
}

int64_t StepCollector::MostSamples() const {
  int64_t most = 0;
  for (const v1::Program& program : plan_.programs()) most = std::max(most, program.batch_size());
  return most;
}

// Of GPUs alone.
void StepCollector::AddDevicePeaks(const v1::StageReport& report, v1::StepMetrics& metrics) const {
  if (report.peak_reserved_bytes() == 0) return;
  metrics.mutable_stage_peak_allocated_bytes()->Resize(plan_.stages_size(), 0);
  metrics.mutable_stage_peak_reserved_bytes()->Resize(plan_.stages_size(), 0);
  metrics.set_stage_peak_allocated_bytes(report.stage(), report.peak_allocated_bytes());
  metrics.set_stage_peak_reserved_bytes(report.stage(), report.peak_reserved_bytes());
}

StepCollector::Partial& StepCollector::PartialOf(int64_t round) {
  auto [found, inserted] = partials_.try_emplace(round);
  if (inserted) {
    found->second.busy_nanos.resize(plan_.stages_size());
    found->second.grad_squares.resize(plan_.stages_size());
    found->second.metrics.mutable_stage_peak_saved_bytes()->Resize(plan_.stages_size(), 0);
  }
  return found->second;
}

void StepCollector::Merge(const v1::RoundDone& round, Partial& partial) const {
  v1::StepMetrics& metrics = partial.metrics;
  metrics.set_step(round.step() + 1);
  metrics.set_epoch(round.epoch());
  partial.samples = std::max(partial.samples, round.samples());
  partial.wall_nanos = std::max(partial.wall_nanos, round.wall_nanos());
  partial.data_wait_nanos = std::max(partial.data_wait_nanos, round.data_wait_nanos());
  for (const v1::StageReport& report : round.stages()) {
    partial.busy_nanos[report.stage()] = report.busy_nanos();
    partial.grad_squares[report.stage()] = report.layer_grad_squares();
    metrics.set_stage_peak_saved_bytes(report.stage(), report.peak_saved_bytes());
    AddDevicePeaks(report, metrics);
  }
  if (round.has_loss()) metrics.set_loss(round.loss());
  if (round.has_lr()) metrics.set_lr(round.lr());
}

v1::StepMetrics StepCollector::Finish(Partial& partial) const {
  v1::StepMetrics metrics = std::move(partial.metrics);
  const double wall = std::max<int64_t>(partial.wall_nanos, 1);
  metrics.set_step_seconds(wall * 1e-9);
  metrics.set_data_wait_share(partial.data_wait_nanos / wall);
  metrics.set_samples_per_second(partial.samples / metrics.step_seconds());
  double busy = 0;
  for (int64_t nanos : partial.busy_nanos) {
    metrics.add_stage_busy(nanos / wall);
    busy += nanos / wall;
  }
  metrics.set_bubble_share(std::max(0.0, 1.0 - busy / workers_));
  const auto has_squares = [](const auto& stage) { return !stage.empty(); };
  if (std::ranges::any_of(partial.grad_squares, has_squares)) metrics.set_grad_norm(GradientNorm(partial));
  return metrics;
}

// Added up in the order of layers, so that it does not depend on the cut.
double StepCollector::GradientNorm(const Partial& partial) {
  double sum = 0;
  for (const auto& stage : partial.grad_squares) {
    for (const double squares : stage) sum += squares;
  }
  return std::sqrt(sum);
}

}  // namespace gpipe::orchestrator
