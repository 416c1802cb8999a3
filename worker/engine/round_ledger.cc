#include "worker/engine/round_ledger.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/attempt_id.h"
#include "common/plan/convert.h"
#include "common/status_macros.h"
#include "pipeline/step_number.h"
#include "spdlog/spdlog.h"
#include "worker/model/memory_meter.h"
#include "worker/stage/loss_scale.h"

namespace gpipe::worker {
namespace {

// Rounds that CUDA may still be working on when the next one is queued.
constexpr size_t kMaxPending = 2;

void LogEvaluation(const v1::Evaluation& evaluation) {
  const std::string accuracy =
      evaluation.has_accuracy() ? absl::StrCat(", accuracy ", 100 * evaluation.accuracy(), "%") : "";
  spdlog::info("{}: the evaluation after step {} is done: loss {:.4g}{}, {} samples", AttemptName(evaluation.attempt()),
               evaluation.step(), evaluation.loss(), accuracy, evaluation.samples());
}

// From CUDA: queued behind what makes the tensor, into pinned memory.
at::Tensor ToHost(const at::Tensor& tensor) { return tensor.to(at::kCPU, /*non_blocking=*/true); }

at::Tensor GatherScalars(const RoundRecord& record) {
  std::vector<at::Tensor> parts;
  if (!record.losses.empty()) parts.push_back(at::stack(record.losses).to(at::kDouble));
  if (!record.counts.empty()) parts.push_back(at::stack(record.counts));
  if (!record.hits.empty()) parts.push_back(at::stack(record.hits).sum(0).to(at::kDouble));
  if (record.grad_squares.defined()) parts.push_back(record.grad_squares);
  if (record.scaling.defined()) parts.push_back(record.scaling);
  return parts.empty() ? at::Tensor() : ToHost(at::cat(parts));
}

const double* Losses(const RoundRecord& record) { return record.scalars.const_data_ptr<double>(); }

const double* Counts(const RoundRecord& record) { return Losses(record) + record.losses.size(); }

const double* Hits(const RoundRecord& record) { return Counts(record) + record.counts.size(); }

double SumOfCounts(const RoundRecord& record) {
  return std::accumulate(Counts(record), Counts(record) + record.counts.size(), 0.0);
}

// The mini-batch's, of the micro-batches in their order.
double LossOf(const RoundRecord& record) {
  if (record.losses.empty()) return 0;
  const double sum = std::accumulate(Losses(record), Losses(record) + record.losses.size(), 0.0);
  return record.counts.empty() ? sum : sum / SumOfCounts(record);
}

// What its loss is the mean of.
double CountedIn(const RoundRecord& record) {
  if (!record.counts.empty()) return SumOfCounts(record);
  return record.hits.empty() ? static_cast<double>(record.plan.round.batch_size) : Hits(record)[1];
}

const double* GradSquares(const RoundRecord& record) { return Hits(record) + (record.hits.empty() ? 0 : 2); }

// In fp16, the loss scale after the step, and whether it was left out.
const double* Scaling(const RoundRecord& record) { return Losses(record) + record.scalars.numel() - 2; }

bool LeftOut(const RoundRecord& record) { return record.scaling.defined() && Scaling(record)[1] != 0; }

// By worker, how long a device waited before actions for what it received last before them.
void AddDeviceWaits(const RoundRecord& record, std::vector<TransferQueue::Traffic>& traffic) {
  for (size_t i = 0; i < record.device_waits.size(); ++i) {
    const auto [action, worker] = record.device_waits[i];
    const bool last = i + 1 == record.device_waits.size() || record.device_waits[i + 1].action != action;
    if (!last || action >= record.timed.size()) continue;
    const int64_t idle_from = action == 0 ? 0 : record.timer->NanosBefore(action - 1) + record.timer->Nanos(action - 1);
    traffic[worker].wait_nanos += std::max<int64_t>(0, record.timer->NanosBefore(action) - idle_from);
  }
}

Position LastOf(const RoundPlan& plan) { return {plan.round.index, plan.program->cycles - 1}; }

}  // namespace

RoundRecord& RoundLedger::Begin(const RoundPlan& plan) {
  current_ = std::make_unique<RoundRecord>();
  current_->plan = plan;
  if (timers_.empty()) timers_.push_back(ActionTimer::Create(options_.device));
  current_->timer = std::move(timers_.back());
  timers_.pop_back();
  current_->timer->Begin();
  return *current_;
}

absl::Status RoundLedger::End() {
  current_->scalars = GatherScalars(*current_);
  for (const auto& [name, parts] : current_->outputs) current_->rows[name] = ToHost(at::cat(parts));
  current_->timer->End();
  current_->outputs.clear();
  pending_.push_back(std::move(current_));
  while (!pending_.empty() && (pending_.size() > kMaxPending || pending_.front()->timer->Complete())) {
    GPIPE_RETURN_IF_ERROR(BookOldest());
  }
  return absl::OkStatus();
}

absl::Status RoundLedger::Flush() {
  while (!pending_.empty()) GPIPE_RETURN_IF_ERROR(BookOldest());
  return absl::OkStatus();
}

absl::Status RoundLedger::Report(Position complete) {
  GPIPE_RETURN_IF_ERROR(Flush());
  if (complete.cycle < 0 || complete <= reported_) return absl::OkStatus();
  v1::Progress progress = NewProgress(complete);
  if (current_) {
    GPIPE_RETURN_IF_ERROR(AwaitDevice(*current_->timer));
    AddActions(*current_, progress);
  }
  Send(std::move(progress));
  reported_ = complete;
  return absl::OkStatus();
}

absl::Status RoundLedger::AwaitDevice(ActionTimer& timer) {
  timer.Synchronize();
  return communicator_.status();
}

absl::Status RoundLedger::BookOldest() {
  const std::unique_ptr<RoundRecord> record = std::move(pending_.front());
  pending_.pop_front();
  GPIPE_RETURN_IF_ERROR(AwaitDevice(*record->timer));
  const double loss = LossOf(*record);
  GPIPE_RETURN_IF_ERROR(Deliver(*record));
  GPIPE_RETURN_IF_ERROR(AddLoss(*record, loss));

  v1::Progress progress = NewProgress(LastOf(record->plan));
  AddActions(*record, progress);
  AddRoundDone(*record, loss, progress);
  Send(std::move(progress));
  reported_ = std::max(reported_, LastOf(record->plan));
  device_free_ = record->timer->BeginNanos(device_free_) + record->timer->WallNanos();
  timers_.push_back(std::move(record->timer));
  return absl::OkStatus();
}

absl::Status RoundLedger::Deliver(RoundRecord& record) const {
  if (record.rows.empty()) return absl::OkStatus();
  if (options_.output != nullptr) return options_.output->Append(record.rows);
  if (options_.give) {
    GPIPE_ASSIGN_OR_RETURN(record.result, options_.give(record.plan, record.rows));
  }
  return absl::OkStatus();
}

absl::Status RoundLedger::AddLoss(const RoundRecord& record, double loss) {
  switch (record.plan.round.kind) {
    case pipeline::RoundKind::kEvaluate:
      return AddEvaluation(record, loss);
    case pipeline::RoundKind::kCheckLoss:
      AddLossCheck(record, loss);
      return absl::OkStatus();
    default:
      return CheckLoss(record, loss);
  }
}

// Also where it is not finite, which is what the check is to find.
void RoundLedger::AddLossCheck(const RoundRecord& record, double loss) {
  if (!options_.reports_loss) return;
  checked_losses_.push_back(loss);
  if (!record.plan.round.last_of_kind) return;
  v1::WorkerMessage message;
  v1::LossChecked& checked = *message.mutable_loss_checked();
  *checked.mutable_attempt() = options_.attempt;
  checked.set_first(checked_losses_[0]);
  checked.set_second(checked_losses_[1]);
  checked.set_both(checked_losses_[2]);
  sink_.Send(std::move(message));
}

absl::Status RoundLedger::CheckScale(const RoundRecord& record) const {
  const double scale = Scaling(record)[0];
  const std::string step = pipeline::NameOf(record.plan.round);
  if (scale < LossScale::kLeast) {
    return absl::OutOfRangeError(
        absl::StrCat("gradients are not finite in fp16 at any loss scale (", scale, ") in ", step));
  }
  if (options_.reports_loss) {
    spdlog::info("{}: {} is left out, as its gradients overflowed in fp16; the loss scale is {} now",
                 AttemptName(options_.attempt), step, scale);
  }
  return absl::OkStatus();
}

absl::Status RoundLedger::CheckLoss(const RoundRecord& record, double loss) const {
  if (LeftOut(record)) return CheckScale(record);
  if (std::isfinite(loss)) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("loss is not finite (",
                                            std::isnan(loss) ? "nan"
                                            : loss > 0       ? "inf"
                                                             : "-inf",
                                            ") in ", pipeline::NameOf(record.plan.round)));
}

absl::Status RoundLedger::AddEvaluation(const RoundRecord& record, double loss) {
  if (!options_.reports_loss) return absl::OkStatus();
  const pipeline::Round& round = record.plan.round;
  const double counted = CountedIn(record);
  // Over nothing it is 0/0, and no part of the mean.
  if (counted > 0) evaluation_.loss += options_.loss_adds_up ? loss : loss * counted;
  evaluation_.hits += record.hits.empty() ? 0 : Hits(record)[0];
  evaluation_.counted += counted;
  evaluation_.samples += round.batch_size;
  if (!round.last_of_kind) return absl::OkStatus();

  const double mean = options_.loss_adds_up ? evaluation_.loss : evaluation_.loss / evaluation_.counted;
  GPIPE_RETURN_IF_ERROR(CheckLoss(record, mean));
  v1::WorkerMessage message;
  v1::Evaluation& evaluation = *message.mutable_evaluation();
  *evaluation.mutable_attempt() = options_.attempt;
  evaluation.set_step(round.step);
  evaluation.set_loss(mean);
  if (!record.hits.empty()) evaluation.set_accuracy(evaluation_.hits / evaluation_.counted);
  evaluation.set_samples(evaluation_.samples);
  LogEvaluation(evaluation);
  sink_.Send(std::move(message));
  evaluation_ = {};
  return absl::OkStatus();
}

void RoundLedger::AddRoundDone(const RoundRecord& record, double loss, v1::Progress& progress) const {
  const pipeline::Round& round = record.plan.round;
  v1::RoundDone& done = *progress.add_rounds();
  done.set_round(round.index);
  done.set_step(round.step);
  done.set_epoch(round.epoch);
  done.set_samples(round.batch_size);
  done.set_wall_nanos(record.timer->WallNanos());
  done.set_data_wait_nanos(record.data_wait_nanos);
  for (size_t i = 0; i < options_.stages.size(); ++i) *done.add_stages() = ReportOf(i, record);
  AddTraffic(record, done);
  if (record.result) *done.mutable_result() = *record.result;
  if (record.plan.round.kind != pipeline::RoundKind::kTrain || !options_.reports_loss) return;
  if (std::isfinite(loss)) done.set_loss(loss);
  done.set_lr(record.lr);
}

v1::StageReport RoundLedger::ReportOf(size_t hosted, const RoundRecord& record) const {
  const HostedLayers& layers = options_.stages[hosted];
  v1::StageReport report;
  report.set_stage(layers.stage);
  if (hosted < record.peak_saved_bytes.size()) report.set_peak_saved_bytes(record.peak_saved_bytes[hosted]);
  const DevicePeak peak = DevicePeakOf(options_.device);
  report.set_peak_allocated_bytes(peak.allocated_bytes);
  report.set_peak_reserved_bytes(peak.reserved_bytes);
  for (size_t action = 0; action < record.timed.size(); ++action) {
    if (record.timed[action].stage != layers.stage) continue;
    report.set_busy_nanos(report.busy_nanos() + record.timer->Nanos(action));
  }
  if (!record.grad_squares.defined() || LeftOut(record)) return report;
  const double* squares = GradSquares(record);
  report.mutable_layer_grad_squares()->Add(squares + layers.first, squares + layers.first + layers.count);
  return report;
}

void RoundLedger::AddTraffic(const RoundRecord& record, v1::RoundDone& done) {
  std::vector<TransferQueue::Traffic> traffic = record.traffic;
  AddDeviceWaits(record, traffic);
  for (size_t worker = 0; worker < traffic.size(); ++worker) {
    const auto& [sent, received, waited] = traffic[worker];
    if (sent == 0 && received == 0) continue;
    v1::PeerTraffic& peer = *done.add_traffic();
    peer.set_worker(static_cast<int>(worker));
    peer.set_sent_bytes(sent);
    peer.set_received_bytes(received);
    peer.set_wait_nanos(waited);
  }
}

void RoundLedger::AddActions(RoundRecord& record, v1::Progress& progress) const {
  const int64_t begin = record.timer->BeginNanos(device_free_);
  for (; record.reported < record.timed.size(); ++record.reported) {
    const pipeline::Action& action = record.timed[record.reported];
    v1::ActionDone& done = *progress.add_actions();
    done.set_round(record.plan.round.index);
    done.set_cycle(action.cycle);
    done.set_stage(action.stage);
    done.set_kind(ToProto(action.kind));
    done.set_micro_batch(action.micro_batch);
    done.set_nanos(record.timer->Nanos(record.reported));
    const int64_t start = begin + record.timer->NanosBefore(record.reported);
    if (options_.clock != nullptr) done.set_start_nanos(options_.clock->OnOrchestrator(start));
  }
}

v1::Progress RoundLedger::NewProgress(Position complete) const {
  v1::Progress progress;
  *progress.mutable_attempt() = options_.attempt;
  progress.set_round(complete.round);
  progress.set_cycle(complete.cycle);
  return progress;
}

void RoundLedger::Send(v1::Progress progress) {
  v1::WorkerMessage message;
  *message.mutable_progress() = std::move(progress);
  sink_.Send(std::move(message));
}

}  // namespace gpipe::worker
