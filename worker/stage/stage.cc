#include "worker/stage/stage.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "worker/model/model_layers.h"
#include "worker/stage/loss.h"
#include "worker/stage/model_stage.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

std::vector<CrossingValue> IncomingOf(const v1::Plan& plan, int stage) {
  std::vector<CrossingValue> values;
  if (stage == 0) values.push_back({"input", false});
  for (const v1::Edge& edge : plan.edges()) {
    if (edge.to_stage() == stage) values.push_back({edge.value(), edge.requires_grad()});
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
      values.push_back({edge.value(), edge.requires_grad()});
    } else {
      known->requires_grad = known->requires_grad || edge.requires_grad();
    }
  }
  return values;
}

absl::Status CheckCut(const v1::JobSpec& spec, const v1::Plan& plan, int stage) {
  if (stage < 0 || stage >= plan.stages_size()) {
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage, " of a plan of ", plan.stages_size()));
  }
  const v1::Stage& cut = plan.stages(stage);
  if (cut.first_layer() < 0 || cut.layer_count() < 1 ||
      cut.first_layer() > spec.model().sequential_size() - cut.layer_count()) {
    return absl::InvalidArgumentError(
        absl::StrCat("stage ", stage, " is not within the model's ", spec.model().sequential_size(), " layers"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Stage>> Stage::Create(const v1::JobSpec& job, const v1::Plan& plan, int stage,
                                                     c10::Device device) {
  GPIPE_RETURN_IF_ERROR(CheckCut(job, plan, stage));
  const v1::JobSpec spec = spec::WithDefaults(job);
  const v1::Stage& cut = plan.stages(stage);
  StageParts parts;
  parts.incoming = IncomingOf(plan, stage);
  parts.outgoing = OutgoingOf(plan, stage);
  parts.frozen.assign(spec.train().freeze().begin(), spec.train().freeze().end());
  parts.training = spec.has_train();
  parts.needs_backward = cut.needs_backward();
  parts.device = device;
  GPIPE_ASSIGN_OR_RETURN(parts.layers, BuildSequential(spec, {cut.first_layer(), cut.layer_count(),
                                                              spec.pipeline().deferred_batch_norm(), device}));
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Stage>> {
    if (stage == plan.stages_size() - 1) {
      parts.output = parts.layers.back().outputs.front();
      if (spec.has_train()) parts.loss = Loss::Create(spec.train().loss());
    }
    return ModelStage::Create(std::move(parts));
  });
}

}  // namespace gpipe::worker
