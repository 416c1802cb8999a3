#include "worker/engine/action_executor.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/plan/evaluation.h"
#include "common/status_macros.h"
#include "pipeline/step_number.h"
#include "worker/engine/round_trace.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using pipeline::Action;
using pipeline::ActionKind;
using pipeline::RoundKind;

// The value of an edge among what a stage made.
absl::StatusOr<at::Tensor> Pick(const Values& values, const std::string& name) {
  auto found = values.find(name);
  if (found != values.end()) return found->second;
  return absl::InternalError(absl::StrCat("the stage made no ", name));
}

absl::Status Annotate(const absl::Status& status, const Action& action, const pipeline::Round& round) {
  // What a transfer or an abort says is about the whole attempt, and already says where.
  if (status.ok() || status.code() == absl::StatusCode::kUnavailable || !pipeline::IsCompute(action.kind)) {
    return status;
  }
  absl::Status result(status.code(), absl::StrCat(status.message(), " (", pipeline::ToString(action), ", stage ",
                                                  action.stage, ", ", pipeline::NameOf(round), ")"));
  return result;
}

}  // namespace

// Measures `compute` and books the time on the action.
template <typename Compute>
auto ActionExecutor::Timed(const Action& action, Compute compute) {
  record_->timer->Start();
  auto result = compute();
  record_->timer->Stop();
  record_->timed.push_back(action);
  return result;
}

absl::Status ActionExecutor::Begin(const RoundPlan& plan, Batch batch, RoundRecord& record) {
  round_ = plan;
  batch_ = std::move(batch);
  record_ = &record;
  if (plan.round.kind == RoundKind::kUpdate) return absl::OkStatus();
  for (const HostedStage& hosted : parts_.stages.In(round_.round.kind)) {
    const bool goes_on = plan.round.kind == RoundKind::kBackward;
    GPIPE_RETURN_IF_ERROR(goes_on ? hosted.stage->Resume(plan.told.forward())
                                  : hosted.stage->Begin(MiniBatchFor(hosted)));
  }
  return absl::OkStatus();
}

MiniBatch ActionExecutor::MiniBatchFor(const HostedStage& hosted) const {
  MiniBatch mini_batch;
  mini_batch.seed = parts_.spec.train().seed();
  // Without training, what a sample draws is a matter of its place in the data.
  mini_batch.step = round_.training() ? round_.round.step : round_.round.first_sample;
  mini_batch.micro_batch_sizes = round_.program->micro_batch_sizes;
  mini_batch.training = round_.training();
  mini_batch.accumulates = round_.asked();
  if (hosted.last && !round_.asked()) mini_batch.target = Target();
  if (parts_.loss_scale != nullptr) mini_batch.loss_scale = parts_.loss_scale->scale();
  return mini_batch;
}

// Of a loss that the model computes: what it is a mean over.
at::Tensor ActionExecutor::Target() const {
  const std::string& counted = parts_.stages.counted_input();
  return counted.empty() ? batch_.target : batch_.inputs.at(counted);
}

absl::Status ActionExecutor::Execute(const Action& action) {
  const auto dispatch = [&] {
    const TracedAction traced(action);
    return Dispatch(action);
  };
  return Annotate(CatchTorch(dispatch), action, round_.round);
}

absl::Status ActionExecutor::Dispatch(const Action& action) {
  switch (action.kind) {
    case ActionKind::kForward:
      return Forward(action);
    case ActionKind::kRecompute:
      return Recompute(action);
    case ActionKind::kBackward:
      return Backward(action);
    case ActionKind::kSendForward:
    case ActionKind::kSendBackward:
      return Send(action);
    case ActionKind::kRecvForward:
    case ActionKind::kRecvBackward:
      return Receive(action);
    case ActionKind::kReduceGrad:
      return ReduceGradients(action);
    case ActionKind::kOptimizer:
      return Update(action);
  }
  return absl::InternalError("unknown action");
}

absl::Status ActionExecutor::End() {
  if (round_.round.kind != RoundKind::kUpdate) GPIPE_RETURN_IF_ERROR(EndStages());
  batch_ = {};
  if (values_.empty()) return absl::OkStatus();
  return absl::InternalError("the round has ended with a value that no stage used");
}

absl::Status ActionExecutor::EnterForward(const Action& action) const {
  const pipeline::Round& round = round_.round;
  const bool evaluates = round.kind == pipeline::RoundKind::kEvaluate || round.kind == pipeline::RoundKind::kCheckLoss;
  return parts_.beacon.Enter(evaluates ? v1::PHASE_EVALUATION : v1::PHASE_FORWARD,
                             evaluates ? failpoint::kEvaluation : failpoint::kForward, action.stage,
                             pipeline::StepNumber(round), action.micro_batch);
}

ForwardMode ActionExecutor::ModeOf(const Action& action) const {
  if (!round_.training()) return ForwardMode::kInference;
  return action.checkpointed ? ForwardMode::kCheckpointed : ForwardMode::kKeep;
}

absl::Status ActionExecutor::EndStages() {
  for (const HostedStage& hosted : parts_.stages.In(round_.round.kind)) {
    const bool pauses = round_.round.kind == RoundKind::kForward;
    GPIPE_RETURN_IF_ERROR(pauses ? hosted.stage->Suspend(round_.round.index) : hosted.stage->End());
    record_->peak_saved_bytes.push_back(hosted.stage->peak_saved_bytes());
  }
  return absl::OkStatus();
}

absl::Status ActionExecutor::Forward(const Action& action) {
  GPIPE_RETURN_IF_ERROR(EnterForward(action));
  const HostedStage& hosted = parts_.stages.Find(action.stage, round_.round.kind);
  GPIPE_ASSIGN_OR_RETURN(Values inputs, ForwardInputs(hosted, action.micro_batch));
  GPIPE_ASSIGN_OR_RETURN(Values outputs, Timed(action, [&] {
                           return hosted.stage->Forward(action.micro_batch, std::move(inputs), ModeOf(action));
                         }));
  if (parts_.beacon.failpoint.HitNan(failpoint::kForward)) {
    for (auto& [name, value] : outputs) value = at::full_like(value, NAN);
  }
  if (hosted.last) KeepResults(action.micro_batch, outputs);
  return KeepOutputs(hosted, action.micro_batch, outputs);
}

absl::StatusOr<Values> ActionExecutor::ForwardInputs(const HostedStage& hosted, int micro_batch) {
  Values inputs;
  for (const std::string& name : hosted.inputs) {
    const auto whole = batch_.whole.find(name);
    inputs[name] = whole != batch_.whole.end() ? whole->second : MicroBatchOf(batch_.inputs.at(name), micro_batch);
  }
  for (int edge : hosted.incoming) {
    GPIPE_ASSIGN_OR_RETURN(inputs[EdgeAt(parts_.plan, edge).value()],
                           values_.Take(edge, Direction::kForward, micro_batch));
  }
  return inputs;
}

absl::Status ActionExecutor::KeepOutputs(const HostedStage& hosted, int micro_batch, const Values& outputs) {
  for (int edge : hosted.outgoing) {
    GPIPE_ASSIGN_OR_RETURN(at::Tensor value, Pick(outputs, EdgeAt(parts_.plan, edge).value()));
    values_.Put(edge, Direction::kForward, micro_batch, std::move(value));
  }
  return absl::OkStatus();
}

void ActionExecutor::KeepRows(const std::string& name, int micro_batch, const at::Tensor& rows) {
  std::vector<at::Tensor>& parts = record_->outputs[name];
  parts.resize(round_.program->micro_batch_sizes.size());
  at::Tensor& part = parts[micro_batch];
  part = part.defined() ? part + rows : rows;
}

void ActionExecutor::KeepResults(int micro_batch, const Values& outputs) {
  if (round_.asked()) {
    const bool by_value = round_.training();
    for (const auto& [name, value] : parts_.stages.made_outputs()) {
      KeepRows(name, micro_batch, outputs.at(by_value ? value : name));
    }
    return;
  }
  if (round_.round.kind == RoundKind::kInfer) {
    for (const auto& [name, rows] : outputs) KeepRows(name, micro_batch, rows);
    return;
  }
  if (auto loss = outputs.find("loss"); loss != outputs.end()) record_->losses.push_back(loss->second);
  if (auto count = outputs.find("count"); count != outputs.end()) record_->counts.push_back(count->second);
  if (auto hits = outputs.find("hits"); hits != outputs.end()) record_->hits.push_back(hits->second);
}

absl::Status ActionExecutor::Recompute(const Action& action) {
  parts_.beacon.activity.Set(v1::PHASE_BACKWARD, action.stage, pipeline::StepNumber(round_.round), action.micro_batch);
  return Timed(
      action, [&] { return parts_.stages.Find(action.stage, round_.round.kind).stage->Recompute(action.micro_batch); });
}

absl::Status ActionExecutor::Backward(const Action& action) {
  GPIPE_RETURN_IF_ERROR(parts_.beacon.Enter(v1::PHASE_BACKWARD, failpoint::kBackward, action.stage,
                                            pipeline::StepNumber(round_.round), action.micro_batch));
  const HostedStage& hosted = parts_.stages.Find(action.stage, round_.round.kind);
  GPIPE_ASSIGN_OR_RETURN(Values gradients, OutputGradients(hosted, action.micro_batch));
  GPIPE_ASSIGN_OR_RETURN(
      Values results, Timed(action, [&] { return hosted.stage->Backward(action.micro_batch, std::move(gradients)); }));
  return KeepInputGradients(hosted, action.micro_batch, results);
}

absl::StatusOr<Values> ActionExecutor::OutputGradients(const HostedStage& hosted, int micro_batch) {
  Values gradients;
  for (int edge : hosted.outgoing) {
    if (!EdgeAt(parts_.plan, edge).requires_grad()) continue;
    GPIPE_ASSIGN_OR_RETURN(at::Tensor gradient, values_.Take(edge, Direction::kBackward, micro_batch));
    at::Tensor& sum = gradients[EdgeAt(parts_.plan, edge).value()];
    sum = sum.defined() ? sum + gradient : std::move(gradient);
  }
  if (!hosted.last) return gradients;
  for (const ClientValue& given : parts_.stages.given_gradients()) {
    gradients[given.value] = MicroBatchOf(batch_.inputs.at(given.value), micro_batch);
  }
  return gradients;
}

at::Tensor ActionExecutor::MicroBatchOf(const at::Tensor& mini_batch, int micro_batch) const {
  const WorkerProgram& program = *round_.program;
  return mini_batch.narrow(0, program.offsets[micro_batch], program.micro_batch_sizes[micro_batch]);
}

absl::Status ActionExecutor::KeepInputGradients(const HostedStage& hosted, int micro_batch, const Values& gradients) {
  for (int edge : hosted.incoming) {
    if (!EdgeAt(parts_.plan, edge).requires_grad()) continue;
    GPIPE_ASSIGN_OR_RETURN(at::Tensor gradient, Pick(gradients, EdgeAt(parts_.plan, edge).value()));
    values_.Put(edge, Direction::kBackward, micro_batch, std::move(gradient));
  }
  for (const auto& [name, value] : parts_.stages.made_gradients()) {
    if (const auto made = gradients.find(value); made != gradients.end()) KeepRows(name, micro_batch, made->second);
  }
  return absl::OkStatus();
}

absl::Status ActionExecutor::Send(const Action& action) {
  const Direction direction = pipeline::DirectionOf(action.kind);
  GPIPE_ASSIGN_OR_RETURN(at::Tensor value, values_.Take(action.edge, direction, action.micro_batch));
  return parts_.transfers.Send(action, round_.program->micro_batch_sizes[action.micro_batch], std::move(value));
}

absl::Status ActionExecutor::Receive(const Action& action) {
  const Direction direction = pipeline::DirectionOf(action.kind);
  GPIPE_ASSIGN_OR_RETURN(at::Tensor value, parts_.transfers.CompleteReceive(action));
  if (value.is_cuda()) record_->device_waits.push_back({record_->timed.size(), parts_.transfers.PeerOf(action)});
  values_.Put(action.edge, direction, action.micro_batch, std::move(value));
  return absl::OkStatus();
}

absl::Status ActionExecutor::ReduceGradients(const Action& action) {
  parts_.beacon.activity.Set(v1::PHASE_OPTIMIZER, action.stage, pipeline::StepNumber(round_.round));
  const ActivityTracker::Wait waiting(parts_.beacon.activity, ActivityTracker::Wait::kAll);
  GPIPE_RETURN_IF_ERROR(parts_.shared_gradients.Reduce(parts_.communicator));
  const double max_norm = parts_.spec.train().grad_clip_norm();
  if (max_norm <= 0 && parts_.loss_scale == nullptr) return absl::OkStatus();
  at::Tensor squares = parts_.optimizer->SquaredGradientNorms(parts_.plan.layers_size());
  GPIPE_RETURN_IF_ERROR(parts_.communicator.AllReduceSum(squares));
  if (parts_.loss_scale != nullptr) squares = parts_.loss_scale->Unscale(squares);
  record_->grad_squares = squares;
  return max_norm <= 0 ? absl::OkStatus() : parts_.optimizer->ClipGradients(squares.sum().sqrt(), max_norm);
}

absl::Status ActionExecutor::Update(const Action& action) {
  GPIPE_RETURN_IF_ERROR(parts_.beacon.Enter(v1::PHASE_OPTIMIZER, failpoint::kOptimizer, action.stage,
                                            pipeline::StepNumber(round_.round)));
  if (parts_.checkpoints != nullptr) GPIPE_RETURN_IF_ERROR(parts_.checkpoints->WaitForCopy());
  record_->lr = round_.told.learning_rate();
  const bool reduced = record_->grad_squares.defined();
  if (parts_.loss_scale != nullptr && !reduced) return absl::InternalError("nobody has looked for an overflow");
  GPIPE_RETURN_IF_ERROR(Timed(action, [&] {
    if (!reduced) record_->grad_squares = parts_.optimizer->SquaredGradientNorms(parts_.plan.layers_size());
    return parts_.optimizer->Step(record_->lr);
  }));
  if (round_.asked()) parts_.shared_gradients.KeepOne();  // Others let go of all gradients before they add to them.
  if (parts_.loss_scale != nullptr) {
    record_->scaling = at::stack({parts_.loss_scale->scale(), parts_.loss_scale->overflow()}).to(at::kDouble);
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
