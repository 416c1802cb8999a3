#include "worker/engine/hosted_stages.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/plan/evaluation.h"
#include "common/plan/shape.h"
#include "common/spec/client_data.h"
#include "common/spec/unbatched.h"
#include "common/status_macros.h"

namespace gpipe::worker {

namespace {

std::string CountedInput(const v1::Train& train, const std::vector<std::string>& inputs) {
  const v1::ModelOutput& loss = train.loss().model_output();
  const auto& names = train.dataset().inputs();
  if (loss.mean_of() != v1::LOSS_MEAN_TARGETS) return "";
  return inputs[static_cast<size_t>(std::find(names.begin(), names.end(), loss.targets()) - names.begin())];
}

bool Reads(const std::vector<HostedStage>& stages, const std::string& input) {
  return std::any_of(stages.begin(), stages.end(), [&](const HostedStage& stage) {
    return std::find(stage.inputs.begin(), stage.inputs.end(), input) != stage.inputs.end();
  });
}

// The values of the model's outputs. REQUIRES: the last layer is described, as it is to the worker that has it.
absl::StatusOr<std::vector<std::string>> OutputValuesOf(const Archive* archive, const v1::Plan& plan) {
  if (archive != nullptr) return OutputValues(archive->program(), plan);
  return std::vector<std::string>{plan.layers(plan.layers_size() - 1).makes(0).name()};
}

// Only the last stage of the model reads targets, and what the loss counts.
DataRole RoleOf(const std::vector<HostedStage>& stages, const std::vector<HostedStage>& evaluation,
                const std::vector<std::string>& inputs, const std::set<std::string>& unbatched,
                const std::string& counted) {
  DataRole role{{}, stages.back().last};
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool read = Reads(stages, inputs[i]) || Reads(evaluation, inputs[i]);
    if (!read && inputs[i] != counted) continue;
    role.inputs.push_back({static_cast<int>(i), inputs[i], unbatched.contains(inputs[i])});
  }
  return role;
}

std::vector<EdgeEnd> EndsOf(const v1::Plan& plan, int first_edge, const std::vector<CrossingValue>& values,
                            absl::FunctionRef<bool(const v1::Edge& edge)> is_here) {
  std::vector<EdgeEnd> ends;
  for (int i = 0; i < plan.edges_size(); ++i) {
    const v1::Edge& edge = plan.edges(i);
    if (is_here(edge)) ends.push_back({first_edge + i, PlaceOf(values, edge.value()), edge.requires_grad()});
  }
  return ends;
}

struct StagesRequest {
  const v1::JobSpec& spec;
  const v1::Plan& plan;
  int worker = 0;
  c10::Device device;
  int first_edge = 0;  // The number of the plan's first one.
};

absl::StatusOr<std::vector<HostedStage>> CreateStages(const StagesRequest& request, const ExportedModel& model) {
  const v1::Plan& plan = request.plan;
  std::vector<HostedStage> stages;
  for (int i = 0; i < plan.stages_size(); ++i) {
    if (plan.stage_worker(i) != request.worker) continue;
    HostedStage stage;
    stage.index = i;
    stage.inputs.assign(plan.stages(i).inputs().begin(), plan.stages(i).inputs().end());
    stage.last = i == plan.stages_size() - 1;
    auto created = Stage::Create(request.spec, plan, i, request.device, model);
    if (!created.ok()) {
      return absl::Status(created.status().code(), absl::StrCat("stage ", i, ": ", created.status().message()));
    }
    stage.stage = *std::move(created);
    stage.incoming = EndsOf(plan, request.first_edge, stage.stage->incoming(),
                            [i](const v1::Edge& edge) { return edge.to_stage() == i; });
    stage.outgoing = EndsOf(plan, request.first_edge, stage.stage->outgoing(),
                            [i](const v1::Edge& edge) { return edge.from_stage() == i; });
    stages.push_back(std::move(stage));
  }
  return stages;
}

}  // namespace

size_t PlaceOf(const std::vector<CrossingValue>& values, const std::string& name) {
  return static_cast<size_t>(std::ranges::find(values, name, &CrossingValue::name) - values.begin());
}

absl::StatusOr<HostedStages> HostedStages::Create(const v1::JobSpec& spec, const v1::Plan& plan, int worker,
                                                  c10::Device device, const HostedModel& model) {
  HostedStages hosted;
  TensorPool tensors, masters;
  GPIPE_ASSIGN_OR_RETURN(hosted.stages_,
                         CreateStages({spec, plan, worker, device, 0},
                                      {model.archive, &tensors, model.values, &masters, hosted.held_.get()}));
  if (hosted.stages_.empty()) return absl::InvalidArgumentError(absl::StrCat("worker ", worker, " hosts no stage"));
  if (model.evaluation != nullptr) {
    const v1::Plan evaluation = EvaluationPlan(plan);
    GPIPE_ASSIGN_OR_RETURN(hosted.evaluation_,
                           CreateStages({spec, evaluation, worker, device, plan.edges_size()},
                                        {model.evaluation, &tensors, model.values, &masters, hosted.held_.get()}));
  }
  const std::vector<std::string> inputs = InputNames(model.archive);
  if (hosted.has_last()) hosted.counted_input_ = CountedInput(spec.train(), inputs);
  hosted.role_ =
      RoleOf(hosted.stages_, hosted.evaluation_, inputs, spec::UnbatchedInputs(spec, inputs), hosted.counted_input_);
  if (!spec::HasClientData(spec)) return hosted;
  std::vector<std::string> outputs;
  if (hosted.has_last()) {
    GPIPE_ASSIGN_OR_RETURN(outputs, OutputValuesOf(model.archive, plan));
  }
  hosted.FindClientValues(plan, inputs, outputs);
  return hosted;
}

void HostedStages::FindClientValues(const v1::Plan& plan, const std::vector<std::string>& inputs,
                                    const std::vector<std::string>& outputs) {
  for (const ModelInput& input : role_.inputs) {
    const v1::ModelValue& data = plan.inputs(input.index);
    given_inputs_.push_back({data.name(), inputs[static_cast<size_t>(input.index)]});
    if (data.requires_grad()) made_gradients_.push_back(given_inputs_.back());
  }
  if (!has_last()) return;
  const auto& described = plan.layers(plan.layers_size() - 1).outputs();
  for (int i = 0; i < described.size(); ++i) {
    const std::string& value = outputs[static_cast<size_t>(i)];
    made_outputs_.push_back({described[i].name(), value, PlaceOf(stages_.back().stage->outgoing(), value)});
    if (IsDifferentiable(described[i].dtype())) given_gradients_.push_back(made_outputs_.back());
  }
}

std::vector<NamedTensor> HostedStages::State() const {
  std::vector<NamedTensor> state;
  std::set<std::string> names;  // Two stages may share a tensor.
  for (const HostedStage& hosted : stages_) {
    std::ranges::copy_if(hosted.stage->state(), std::back_inserter(state),
                         [&](const NamedTensor& tensor) { return names.insert(tensor.name).second; });
  }
  for (const HostedStage& hosted : evaluation_) {
    for (NamedTensor tensor : hosted.stage->state()) {
      tensor.trainable = false;
      if (names.insert(tensor.name).second) state.push_back(std::move(tensor));
    }
  }
  return state;
}

std::vector<NamedTensor> HostedStages::OwnState() const {
  std::vector<NamedTensor> state = State();
  std::erase_if(state, [](const NamedTensor& tensor) { return !tensor.owned; });
  return state;
}

std::vector<NamedTensor> HostedStages::TrainableParameters() const {
  std::vector<NamedTensor> state = State();
  std::erase_if(state, [](const NamedTensor& tensor) { return !tensor.trainable; });
  return state;
}

}  // namespace gpipe::worker
