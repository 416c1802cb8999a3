#include "worker/engine/action_executor.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
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

// A value that is used by several stages has a gradient of each: their sum is not received anywhere.
bool HasOneGradient(const std::vector<EdgeEnd>& ends, size_t place) {
  return std::ranges::count_if(ends, [&](const EdgeEnd& end) { return end.place == place && end.requires_grad; }) == 1;
}

// All that a failpoint makes NaN of.
void SpoilForward(PassResults& made) {
  for (at::Tensor& value : made.values) value = at::full_like(value, NAN);
  for (at::Tensor& output : made.outputs) output = at::full_like(output, NAN);
  if (made.loss.defined()) made.loss = at::full_like(made.loss, NAN);
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
  values_.Begin(CountEdges(parts_.plan), plan.program->micro_batch_sizes.size());
  TakeSamples();
  for (const HostedStage& hosted : parts_.stages.In(round_.round.kind)) {
    const bool goes_on = plan.round.kind == RoundKind::kBackward;
    GPIPE_RETURN_IF_ERROR(goes_on ? hosted.stage->Resume(plan.told.forward())
                                  : hosted.stage->Begin(MiniBatchFor(hosted)));
  }
  return absl::OkStatus();
}

// A round that goes back has gradients of the model's outputs instead.
void ActionExecutor::TakeSamples() {
  samples_.clear();
  for (const HostedStage& hosted : parts_.stages.In(round_.round.kind)) {
    std::vector<Given>& given = samples_.emplace_back();
    for (const std::string& name : hosted.inputs) {
      const bool whole = batch_.whole.contains(name);
      const std::map<std::string, at::Tensor>& from = whole ? batch_.whole : batch_.inputs;
      const auto found = from.find(name);
      given.push_back({found != from.end() ? found->second : at::Tensor(), whole});
    }
  }
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

absl::Status ActionExecutor::Execute(const Step& step) {
  const auto dispatch = [&] {
    const TracedAction traced(step.action);
    return Dispatch(step);
  };
  return Annotate(CatchTorch(dispatch), step.action, round_.round);
}

absl::Status ActionExecutor::Dispatch(const Step& step) {
  const Action& action = step.action;
  switch (action.kind) {
    case ActionKind::kForward:
      return Forward(action);
    case ActionKind::kRecompute:
      return Recompute(action);
    case ActionKind::kBackward:
      return Backward(action);
    case ActionKind::kSendForward:
    case ActionKind::kSendBackward:
      return Send(step);
    case ActionKind::kRecvForward:
    case ActionKind::kRecvBackward:
      return Receive(step);
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
  samples_.clear();
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
  const HostedStage& hosted = StageOf(action);
  GPIPE_ASSIGN_OR_RETURN(std::vector<at::Tensor> inputs, ForwardInputs(hosted, action.micro_batch));
  GPIPE_ASSIGN_OR_RETURN(PassResults made, Timed(action, [&] {
                           return hosted.stage->Forward(action.micro_batch, std::move(inputs), ModeOf(action));
                         }));
  if (parts_.beacon.failpoint.HitNan(failpoint::kForward)) SpoilForward(made);
  if (hosted.last) KeepResults(hosted, action.micro_batch, made);
  KeepOutputs(hosted, action.micro_batch, made.values);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<at::Tensor>> ActionExecutor::ForwardInputs(const HostedStage& hosted, int micro_batch) {
  std::vector<at::Tensor> inputs;
  for (const Given& given : samples_[static_cast<size_t>(hosted.index - parts_.stages.first())]) {
    inputs.push_back(given.whole ? given.mini_batch : MicroBatchOf(given.mini_batch, micro_batch));
  }
  for (const EdgeEnd& end : hosted.incoming) {
    GPIPE_ASSIGN_OR_RETURN(inputs.emplace_back(), values_.Take(end.edge, Direction::kForward, micro_batch));
  }
  return inputs;
}

void ActionExecutor::KeepOutputs(const HostedStage& hosted, int micro_batch, const std::vector<at::Tensor>& values) {
  for (const EdgeEnd& end : hosted.outgoing) {
    values_.Put(end.edge, Direction::kForward, micro_batch, values[end.place]);
  }
}

void ActionExecutor::KeepRows(const std::string& name, int micro_batch, const at::Tensor& rows) {
  std::vector<at::Tensor>& parts = record_->outputs[name];
  parts.resize(round_.program->micro_batch_sizes.size());
  at::Tensor& part = parts[micro_batch];
  part = part.defined() ? part + rows : rows;
}

void ActionExecutor::KeepResults(const HostedStage& hosted, int micro_batch, const PassResults& made) {
  if (round_.asked()) {
    const std::vector<ClientValue>& outputs = parts_.stages.made_outputs();
    for (size_t i = 0; i < outputs.size(); ++i) {
      KeepRows(outputs[i].name, micro_batch, round_.training() ? made.values[outputs[i].place] : made.outputs[i]);
    }
    return;
  }
  if (round_.round.kind == RoundKind::kInfer) {
    const std::vector<OutputValue>& outputs = hosted.stage->outputs();
    for (size_t i = 0; i < outputs.size(); ++i) KeepRows(outputs[i].name, micro_batch, made.outputs[i]);
    return;
  }
  if (made.loss.defined()) record_->losses.push_back(made.loss);
  if (made.count.defined()) record_->counts.push_back(made.count);
  if (made.hits.defined()) record_->hits.push_back(made.hits);
}

absl::Status ActionExecutor::Recompute(const Action& action) {
  parts_.beacon.activity.Set(v1::PHASE_BACKWARD, action.stage, pipeline::StepNumber(round_.round), action.micro_batch);
  return Timed(action, [&] { return StageOf(action).stage->Recompute(action.micro_batch); });
}

absl::Status ActionExecutor::Backward(const Action& action) {
  GPIPE_RETURN_IF_ERROR(parts_.beacon.Enter(v1::PHASE_BACKWARD, failpoint::kBackward, action.stage,
                                            pipeline::StepNumber(round_.round), action.micro_batch));
  const HostedStage& hosted = StageOf(action);
  GPIPE_ASSIGN_OR_RETURN(std::vector<at::Tensor> gradients, OutputGradients(hosted, action.micro_batch));
  GPIPE_ASSIGN_OR_RETURN(const std::vector<at::Tensor> made, Timed(action, [&] {
                           return hosted.stage->Backward(action.micro_batch, std::move(gradients));
                         }));
  KeepInputGradients(hosted, action.micro_batch, made);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<at::Tensor>> ActionExecutor::OutputGradients(const HostedStage& hosted, int micro_batch) {
  std::vector<at::Tensor> gradients(hosted.stage->outgoing().size());
  for (const EdgeEnd& end : hosted.outgoing) {
    if (!end.requires_grad) continue;
    GPIPE_ASSIGN_OR_RETURN(at::Tensor gradient, values_.Take(end.edge, Direction::kBackward, micro_batch));
    at::Tensor& sum = gradients[end.place];
    sum = sum.defined() ? sum + gradient : std::move(gradient);
  }
  if (!hosted.last) return gradients;
  for (const ClientValue& given : parts_.stages.given_gradients()) {
    gradients[given.place] = MicroBatchOf(batch_.inputs.at(given.value), micro_batch);
  }
  return gradients;
}

at::Tensor ActionExecutor::MicroBatchOf(const at::Tensor& mini_batch, int micro_batch) const {
  const WorkerProgram& program = *round_.program;
  return mini_batch.narrow(0, program.offsets[micro_batch], program.micro_batch_sizes[micro_batch]);
}

void ActionExecutor::KeepInputGradients(const HostedStage& hosted, int micro_batch,
                                        const std::vector<at::Tensor>& gradients) {
  for (const EdgeEnd& end : hosted.incoming) {
    if (end.requires_grad) values_.Put(end.edge, Direction::kBackward, micro_batch, gradients[end.place]);
  }
  for (const ClientValue& made : parts_.stages.made_gradients()) {
    const size_t place = PlaceOf(hosted.stage->incoming(), made.value);
    if (place < hosted.inputs.size()) KeepRows(made.name, micro_batch, gradients[place]);
  }
}

std::vector<at::Tensor> ActionExecutor::RoomFor(const Step& step) const {
  const HostedStage& hosted = StageOf(step.action);
  const Direction direction = pipeline::DirectionOf(step.action.kind);
  const bool forward = direction == Direction::kForward;
  const std::vector<EdgeEnd>& ends = forward ? hosted.incoming : hosted.outgoing;
  const at::TensorList places = hosted.stage->Room(direction, step.action.micro_batch);
  if (places.empty()) return {};
  std::vector<at::Tensor> room;
  for (const int edge : step.edges) {
    const auto end = std::ranges::find(ends, edge, &EdgeEnd::edge);
    const bool is_read_so = end != ends.end() && (forward || HasOneGradient(ends, end->place));
    room.push_back(is_read_so ? places[end->place] : at::Tensor());
  }
  return room;
}

absl::Status ActionExecutor::Send(const Step& step) {
  const Direction direction = pipeline::DirectionOf(step.action.kind);
  const int micro_batch = step.action.micro_batch;
  std::vector<at::Tensor> values;
  for (const int edge : step.edges) {
    GPIPE_ASSIGN_OR_RETURN(values.emplace_back(), values_.Take(edge, direction, micro_batch));
  }
  return parts_.transfers.Send(step, round_.program->micro_batch_sizes[micro_batch], std::move(values));
}

absl::Status ActionExecutor::Receive(const Step& step) {
  const Action& action = step.action;
  GPIPE_ASSIGN_OR_RETURN(std::vector<at::Tensor> values, parts_.transfers.CompleteReceive(step));
  if (values.front().is_cuda()) {
    record_->device_waits.push_back({record_->timed.size(), parts_.transfers.PeerOf(action)});
  }
  for (size_t i = 0; i < values.size(); ++i) {
    values_.Put(step.edges[i], pipeline::DirectionOf(action.kind), action.micro_batch, std::move(values[i]));
  }
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
    if (!reduced && parts_.spec.train().grad_norm()) {
      record_->grad_squares = parts_.optimizer->SquaredGradientNorms(parts_.plan.layers_size());
    }
    return parts_.optimizer->Step(record_->lr);
  }));
  if (round_.asked()) parts_.shared_gradients.KeepOne();  // Others let go of all gradients before they add to them.
  if (parts_.loss_scale != nullptr) {
    record_->scaling = at::stack({parts_.loss_scale->scale(), parts_.loss_scale->overflow()}).to(at::kDouble);
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
