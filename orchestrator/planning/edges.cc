#include "orchestrator/planning/edges.h"

#include <map>
#include <string>

#include "absl/strings/str_cat.h"

namespace gpipe::orchestrator {
namespace {

bool IsFloatingPoint(v1::DataType dtype) {
  return dtype == v1::DATA_TYPE_FLOAT32 || dtype == v1::DATA_TYPE_FLOAT64 || dtype == v1::DATA_TYPE_FLOAT16 ||
         dtype == v1::DATA_TYPE_BFLOAT16;
}

int StageOf(const v1::Plan& plan, int layer) {
  int stage = 0;
  while (layer >= plan.stages(stage).first_layer() + plan.stages(stage).layer_count()) ++stage;
  return stage;
}

// The output of `layer`. A stash passes its input on, so the same holds for a stashed value.
void AddEdge(std::string value, int layer, int from_stage, int to_stage, v1::Plan& plan) {
  v1::Edge& edge = *plan.add_edges();
  edge.set_value(std::move(value));
  edge.set_from_stage(from_stage);
  edge.set_to_stage(to_stage);
  *edge.mutable_shape() = plan.layers(layer).output_shape();
  edge.set_dtype(plan.layers(layer).output_dtype());
  bool trained = false;
  for (int before = 0; before <= layer; ++before) trained |= plan.layers(before).trainable_count() > 0;
  edge.set_requires_grad(trained && IsFloatingPoint(edge.dtype()));
}

void AddSkips(const v1::JobSpec& spec, v1::Plan& plan) {
  std::map<std::string, int> stashed;  // Name to the stash's layer.
  for (int layer = 0; layer < spec.model().sequential_size(); ++layer) {
    const v1::Layer& what = spec.model().sequential(layer);
    if (what.has_stash()) stashed[what.stash().name()] = layer;
    if (!what.has_pop_add() && !what.has_pop_cat()) continue;
    const std::string& name = what.has_pop_add() ? what.pop_add().name() : what.pop_cat().name();
    const int from = StageOf(plan, stashed[name]), to = StageOf(plan, layer);
    if (from != to) AddEdge(absl::StrCat("skip.", name), stashed[name], from, to, plan);
  }
}

void MarkBackward(v1::Plan& plan) {
  for (v1::Stage& stage : *plan.mutable_stages()) {
    for (int i = 0; i < stage.layer_count(); ++i) {
      if (plan.layers(stage.first_layer() + i).trainable_count() > 0) stage.set_needs_backward(true);
    }
  }
  for (const v1::Edge& edge : plan.edges()) {
    if (edge.requires_grad()) plan.mutable_stages(edge.to_stage())->set_needs_backward(true);
  }
}

}  // namespace

void AddEdges(const v1::JobSpec& spec, v1::Plan& plan) {
  for (int stage = 0; stage + 1 < plan.stages_size(); ++stage) {
    const int last = plan.stages(stage + 1).first_layer() - 1;
    AddEdge(absl::StrCat("layer.", last), last, stage, stage + 1, plan);
  }
  AddSkips(spec, plan);
  MarkBackward(plan);
}

}  // namespace gpipe::orchestrator
