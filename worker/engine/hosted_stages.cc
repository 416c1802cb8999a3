#include "worker/engine/hosted_stages.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gpipe::worker {

namespace {

// In the model's order.
std::vector<std::string> InputNames(const Archive* archive) {
  if (archive == nullptr) return {"input"};
  std::vector<std::string> names;
  for (const exported::UserInput& input : archive->program().user_inputs) names.push_back(input.value);
  return names;
}

std::string CountedInput(const v1::Train& train, const std::vector<std::string>& inputs) {
  const v1::ModelOutput& loss = train.loss().model_output();
  const auto& names = train.dataset().inputs();
  if (loss.mean_of() != v1::LOSS_MEAN_TARGETS) return "";
  return inputs[static_cast<size_t>(std::find(names.begin(), names.end(), loss.targets()) - names.begin())];
}

// Only the last stage of the model reads targets, and what the loss counts.
DataRole RoleOf(const std::vector<HostedStage>& stages, const std::vector<std::string>& inputs,
                const std::string& counted) {
  DataRole role{{}, stages.back().last};
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool read = std::any_of(stages.begin(), stages.end(), [&](const HostedStage& stage) {
      return std::find(stage.inputs.begin(), stage.inputs.end(), inputs[i]) != stage.inputs.end();
    });
    if (read || inputs[i] == counted) role.inputs.push_back({static_cast<int>(i), inputs[i]});
  }
  return role;
}

}  // namespace

absl::StatusOr<HostedStages> HostedStages::Create(const v1::JobSpec& spec, const v1::Plan& plan, int worker,
                                                  c10::Device device, const Archive* archive, InitialValues values) {
  HostedStages hosted;
  TensorPool tensors;
  for (int i = 0; i < plan.stages_size(); ++i) {
    if (plan.stage_worker(i) != worker) continue;
    HostedStage stage;
    stage.index = i;
    stage.inputs.assign(plan.stages(i).inputs().begin(), plan.stages(i).inputs().end());
    stage.last = i == plan.stages_size() - 1;
    for (int edge = 0; edge < plan.edges_size(); ++edge) {
      if (plan.edges(edge).to_stage() == i) stage.incoming.push_back(edge);
      if (plan.edges(edge).from_stage() == i) stage.outgoing.push_back(edge);
    }
    auto created = Stage::Create(spec, plan, i, device, {archive, &tensors, values});
    if (!created.ok()) {
      return absl::Status(created.status().code(), absl::StrCat("stage ", i, ": ", created.status().message()));
    }
    stage.stage = *std::move(created);
    hosted.stages_.push_back(std::move(stage));
  }
  if (hosted.stages_.empty()) return absl::InvalidArgumentError(absl::StrCat("worker ", worker, " hosts no stage"));
  const std::vector<std::string> inputs = InputNames(archive);
  if (hosted.has_last()) hosted.counted_input_ = CountedInput(spec.train(), inputs);
  hosted.role_ = RoleOf(hosted.stages_, inputs, hosted.counted_input_);
  return hosted;
}

std::vector<NamedTensor> HostedStages::State() const {
  std::vector<NamedTensor> state;
  std::set<std::string> names;  // Two stages may share a tensor.
  for (const HostedStage& hosted : stages_) {
    std::ranges::copy_if(hosted.stage->state(), std::back_inserter(state),
                         [&](const NamedTensor& tensor) { return names.insert(tensor.name).second; });
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
