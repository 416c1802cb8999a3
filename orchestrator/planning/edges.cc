#include "orchestrator/planning/edges.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "common/plan/evaluation.h"

namespace gpipe::orchestrator {
namespace {

struct Made {
  int stage = 0;
  const v1::ModelValue* value = nullptr;
};

void AddEdge(const Made& made, int to_stage, v1::Plan& plan) {
  v1::Edge& edge = *plan.add_edges();
  edge.set_value(made.value->name());
  edge.set_from_stage(made.stage);
  edge.set_to_stage(to_stage);
  *edge.mutable_shape() = made.value->shape();
  edge.set_dtype(made.value->dtype());
  edge.set_requires_grad(made.value->requires_grad());
  *edge.mutable_dimension_order() = made.value->dimension_order();
}

// The layer reads a value: over an edge if another stage makes it, from the data if no layer does.
void AddRead(const std::string& name, int stage, const std::map<std::string, Made>& values,
             std::set<std::pair<std::string, int>>& known, v1::Plan& plan) {
  const auto made = values.find(name);
  if (made != values.end() && made->second.stage == stage) return;
  if (!known.emplace(name, stage).second) return;
  if (made != values.end()) return AddEdge(made->second, stage, plan);
  plan.mutable_stages(stage)->add_inputs(name);
}

void MarkBackward(v1::Plan& plan) {
  for (v1::Stage& stage : *plan.mutable_stages()) {
    for (int i = 0; i < stage.layer_count(); ++i) {
      if (plan.layers(stage.first_layer() + i).trainable_count() > 0) stage.set_needs_backward(true);
    }
  }
  // Where the data's gradient is wanted, it is of all inputs that may have one.
  const bool wanted = std::ranges::any_of(plan.inputs(), [](const auto& input) { return input.requires_grad(); });
  for (v1::Stage& stage : *plan.mutable_stages()) {
    if (wanted && !stage.inputs().empty()) stage.set_needs_backward(true);
  }
  for (const v1::Edge& edge : plan.edges()) {
    if (edge.requires_grad()) plan.mutable_stages(edge.to_stage())->set_needs_backward(true);
  }
}

void AddOwnEdges(v1::Plan& plan) {
  std::map<std::string, Made> values;
  std::set<std::pair<std::string, int>> known;  // Value and consuming stage.
  for (int stage = 0; stage < plan.stages_size(); ++stage) {
    for (int i = 0; i < plan.stages(stage).layer_count(); ++i) {
      const v1::LayerInfo& layer = plan.layers(plan.stages(stage).first_layer() + i);
      for (const std::string& name : layer.reads()) AddRead(name, stage, values, known, plan);
      for (const v1::ModelValue& value : layer.makes()) values[value.name()] = {stage, &value};
    }
  }
}

void AddEvaluationEdges(v1::Plan& plan) {
  v1::Plan evaluation = EvaluationPlan(plan);
  AddOwnEdges(evaluation);
  plan.mutable_evaluation_edges()->Swap(evaluation.mutable_edges());
  for (int stage = 0; stage < plan.stages_size(); ++stage) {
    plan.mutable_stages(stage)->mutable_evaluation_inputs()->Swap(evaluation.mutable_stages(stage)->mutable_inputs());
  }
}

}  // namespace

void AddEdges(v1::Plan& plan) {
  AddOwnEdges(plan);
  MarkBackward(plan);
  if (HasEvaluation(plan)) AddEvaluationEdges(plan);
}

}  // namespace gpipe::orchestrator
