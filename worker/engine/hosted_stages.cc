#include "worker/engine/hosted_stages.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gpipe::worker {

absl::StatusOr<HostedStages> HostedStages::Create(const v1::JobSpec& spec, const v1::Plan& plan, int worker,
                                                  c10::Device device) {
  HostedStages hosted;
  for (int i = 0; i < plan.stages_size(); ++i) {
    if (plan.stage_worker(i) != worker) continue;
    HostedStage stage;
    stage.index = i;
    stage.first = i == 0;
    stage.last = i == plan.stages_size() - 1;
    for (int edge = 0; edge < plan.edges_size(); ++edge) {
      if (plan.edges(edge).to_stage() == i) stage.incoming.push_back(edge);
      if (plan.edges(edge).from_stage() == i) stage.outgoing.push_back(edge);
    }
    auto created = Stage::Create(spec, plan, i, device);
    if (!created.ok()) {
      return absl::Status(created.status().code(), absl::StrCat("stage ", i, ": ", created.status().message()));
    }
    stage.stage = *std::move(created);
    hosted.stages_.push_back(std::move(stage));
  }
  if (hosted.stages_.empty()) return absl::InvalidArgumentError(absl::StrCat("worker ", worker, " hosts no stage"));
  return hosted;
}

std::vector<NamedTensor> HostedStages::State() const {
  std::vector<NamedTensor> state;
  for (const HostedStage& hosted : stages_) std::ranges::copy(hosted.stage->state(), std::back_inserter(state));
  return state;
}

std::vector<NamedTensor> HostedStages::TrainableParameters() const {
  std::vector<NamedTensor> state = State();
  std::erase_if(state, [](const NamedTensor& tensor) { return !tensor.trainable; });
  return state;
}

}  // namespace gpipe::worker
