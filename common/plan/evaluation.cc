#include "common/plan/evaluation.h"

namespace gpipe {

bool HasEvaluation(const v1::Plan& plan) { return plan.layers_size() > 0 && plan.layers(0).has_evaluation(); }

v1::Plan EvaluationPlan(const v1::Plan& plan) {
  v1::Plan evaluation;
  for (const v1::LayerInfo& layer : plan.layers()) {
    v1::LayerInfo& added = *evaluation.add_layers();
    added.set_first_node(layer.evaluation().first_node());
    *added.mutable_reads() = layer.evaluation().reads();
    *added.mutable_makes() = layer.evaluation().makes();
    *added.mutable_tensors() = layer.tensors();
    *added.mutable_outputs() = layer.outputs();
  }
  for (const v1::Stage& stage : plan.stages()) {
    v1::Stage& added = *evaluation.add_stages();
    added.set_first_layer(stage.first_layer());
    added.set_layer_count(stage.layer_count());
    *added.mutable_inputs() = stage.evaluation_inputs();
  }
  *evaluation.mutable_stage_worker() = plan.stage_worker();
  *evaluation.mutable_edges() = plan.evaluation_edges();
  return evaluation;
}

int CountEdges(const v1::Plan& plan) { return plan.edges_size() + plan.evaluation_edges_size(); }

const v1::Edge& EdgeAt(const v1::Plan& plan, int edge) {
  return edge < plan.edges_size() ? plan.edges(edge) : plan.evaluation_edges(edge - plan.edges_size());
}

}  // namespace gpipe
