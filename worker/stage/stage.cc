#include "worker/stage/stage.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/plan/shape.h"
#include "common/plan/shared_tensors.h"
#include "common/spec/client_data.h"
#include "common/spec/unbatched.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "worker/exported/build.h"
#include "worker/model/loss.h"
#include "worker/model/model_layers.h"
#include "worker/stage/captured_stage.h"
#include "worker/stage/model_stage.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

CrossingValue CrossingOver(const v1::Edge& edge) {
  return {edge.value(), edge.requires_grad(), BeginsWithBatch(edge.shape()), FromField(edge.dimension_order())};
}

// The data is cast to what a layer list computes in; an exported model takes it as it is.
std::vector<CrossingValue> IncomingOf(const v1::Plan& plan, int stage, const std::vector<std::string>& inputs,
                                      const std::set<std::string>& unbatched, c10::ScalarType cast) {
  std::vector<CrossingValue> values;
  for (const std::string& name : plan.stages(stage).inputs()) {
    const auto number = static_cast<int>(std::ranges::find(inputs, name) - inputs.begin());
    const bool gradient = number < plan.inputs_size() && plan.inputs(number).requires_grad();
    values.push_back({name, gradient, !unbatched.contains(name), {}, cast});
  }
  for (const v1::Edge& edge : plan.edges()) {
    if (edge.to_stage() == stage) values.push_back(CrossingOver(edge));
  }
  return values;
}

// A value may leave over several edges.
std::vector<CrossingValue> OutgoingOf(const v1::Plan& plan, int stage) {
  std::vector<CrossingValue> values;
  for (const v1::Edge& edge : plan.edges()) {
    if (edge.from_stage() != stage) continue;
    const auto known = std::find_if(values.begin(), values.end(),
                                    [&](const CrossingValue& value) { return value.name == edge.value(); });
    if (known == values.end()) {
      values.push_back(CrossingOver(edge));
    } else {
      known->requires_grad = known->requires_grad || edge.requires_grad();
    }
  }
  return values;
}

// The client gets the outputs in training too, and gives the gradients of those that are floating.
void AddClientOutputs(const v1::Plan& plan, StageParts& parts) {
  const auto& described = plan.layers(plan.layers_size() - 1).outputs();
  for (size_t i = 0; i < parts.outputs.size(); ++i) {
    const auto same = [&](const CrossingValue& known) { return known.name == parts.outputs[i].value; };
    if (std::ranges::any_of(parts.outgoing, same)) continue;  // An output by two names.
    const v1::DataType dtype = described[static_cast<int>(i)].dtype();
    parts.outgoing.push_back({parts.outputs[i].value, IsDifferentiable(dtype)});
  }
}

absl::Status CheckCut(const v1::Plan& plan, int stage, int layers) {
  if (stage < 0 || stage >= plan.stages_size()) {
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage, " of a plan of ", plan.stages_size()));
  }
  const v1::Stage& cut = plan.stages(stage);
  if (cut.first_layer() < 0 || cut.layer_count() < 1 || cut.first_layer() > layers - cut.layer_count()) {
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage, " is not within the model's ", layers, " layers"));
  }
  return absl::OkStatus();
}

// The layer of the plan that each tensor belongs to.
std::map<std::string, int> LayersByTensor(const v1::Plan& plan) {
  std::map<std::string, int> layers;
  for (int i = 0; i < plan.layers_size(); ++i) {
    for (const v1::ModelTensor& tensor : plan.layers(i).tensors()) layers.emplace(tensor.name(), i);
  }
  return layers;
}

// Of tensors that several workers have, those that an earlier one saves.
std::set<std::string> SavedElsewhere(const v1::Plan& plan, int worker) {
  std::set<std::string> names;
  for (const SharedTensor& shared : SharedTensors(plan)) {
    if (shared.workers.front() < worker) names.insert(shared.tensor->name());
  }
  return names;
}

absl::Status AddSequential(const v1::JobSpec& spec, const v1::Plan& plan, int stage, StageParts& parts) {
  GPIPE_RETURN_IF_ERROR(CheckCut(plan, stage, spec.model().sequential_size()));
  const v1::Stage& cut = plan.stages(stage);
  GPIPE_ASSIGN_OR_RETURN(
      parts.layers, BuildSequential(spec, {cut.first_layer(), cut.layer_count(), spec.pipeline().deferred_batch_norm(),
                                           parts.device, parts.precision}));
  if (stage == plan.stages_size() - 1) parts.outputs = {{"output", parts.layers.back().outputs.front()}};
  return absl::OkStatus();
}

// All layers of the stage are one here: nodes of a graph, which only the cut tells apart.
absl::Status AddExported(const v1::JobSpec& spec, const v1::Plan& plan, int stage, const ExportedModel& model,
                         StageParts& parts) {
  const Archive& archive = *model.archive;
  GPIPE_RETURN_IF_ERROR(CheckCut(plan, stage, plan.layers_size()));
  GPIPE_ASSIGN_OR_RETURN(const std::vector<std::string> values, OutputValues(archive.program(), plan));
  GPIPE_ASSIGN_OR_RETURN(
      ModelLayer layer,
      BuildExported(model, plan, {stage, values, spec.pipeline().deferred_batch_norm(), parts.device}));
  parts.layers.push_back(std::move(layer));
  parts.layer_of = LayersByTensor(plan);
  parts.elsewhere = SavedElsewhere(plan, plan.stage_worker(stage));
  if (stage < plan.stages_size() - 1) return absl::OkStatus();
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string& name = plan.layers(plan.layers_size() - 1).outputs(static_cast<int>(i)).name();
    const bool is_losses = spec.has_train() && !spec::HasClientData(spec);
    parts.outputs.push_back({is_losses ? "output" : name, values[i]});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Stage>> Stage::Create(const v1::JobSpec& job, const v1::Plan& plan, int stage,
                                                     c10::Device device, const ExportedModel& model) {
  const v1::JobSpec spec = spec::WithDefaults(job);
  StageParts parts;
  parts.device = device;
  parts.precision = Precision::Of(spec);
  parts.masters = model.masters;
  parts.held = model.held;
  GPIPE_RETURN_IF_ERROR(model.archive == nullptr ? AddSequential(spec, plan, stage, parts)
                                                 : AddExported(spec, plan, stage, model, parts));
  const auto cast = model.archive == nullptr ? parts.precision.compute : c10::ScalarType::Undefined;
  const std::vector<std::string> inputs = InputNames(model.archive);
  parts.incoming = IncomingOf(plan, stage, inputs, spec::UnbatchedInputs(spec, inputs), cast);
  parts.outgoing = OutgoingOf(plan, stage);
  if (spec::HasClientData(spec)) AddClientOutputs(plan, parts);
  parts.frozen.assign(spec.train().freeze().begin(), spec.train().freeze().end());
  parts.training = spec.has_train();
  parts.needs_backward = plan.stages(stage).needs_backward();
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Stage>> {
    const bool drives = spec::HasClientData(spec);  // The client, which has a loss of its own.
    if (!parts.outputs.empty() && spec.has_train() && !drives) parts.loss = Loss::Create(spec.train().loss());
    const bool captured = device.is_cuda() && spec.pipeline().capture() != v1::CAPTURE_NEVER;
    GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Stage> made, ModelStage::Create(std::move(parts)));
    if (!captured) return made;
    return std::make_unique<CapturedStage>(std::move(made), stage, device);
  });
}

}  // namespace gpipe::worker
