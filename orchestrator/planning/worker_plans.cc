#include "orchestrator/planning/worker_plans.h"

#include <vector>

#include "common/plan/shared_tensors.h"

namespace gpipe::orchestrator {

WorkerPlans::WorkerPlans(v1::Plan& plan) : plan_(plan) {
  for (const SharedTensor& shared : SharedTensors(plan)) shared_.insert(shared.tensor->name());
  // Layers and rows are most of a plan, so it is copied without them.
  std::vector<google::protobuf::RepeatedPtrField<v1::Row>> rows(plan.programs_size());
  google::protobuf::RepeatedPtrField<v1::LayerInfo> layers;
  const auto exchange = [&] {
    layers.Swap(plan.mutable_layers());
    for (size_t i = 0; i < rows.size(); ++i) rows[i].Swap(plan.mutable_programs(static_cast<int>(i))->mutable_rows());
  };
  exchange();
  outline_ = plan;
  outline_.clear_timeline();
  exchange();
  for (const v1::LayerInfo& layer : plan.layers()) *outline_.add_layers() = Outline(layer);
  for (int i = 0; i < plan.programs_size(); ++i) {
    for (int row = 0; row < plan.programs(i).rows_size(); ++row) outline_.mutable_programs(i)->add_rows();
  }
}

v1::LayerInfo WorkerPlans::Outline(const v1::LayerInfo& layer) const {
  v1::LayerInfo outline;
  outline.set_first_node(layer.first_node());
  if (layer.has_evaluation()) outline.mutable_evaluation()->set_first_node(layer.evaluation().first_node());
  *outline.mutable_outputs() = layer.outputs();
  for (const v1::ModelTensor& tensor : layer.tensors()) {
    if (shared_.contains(tensor.name())) *outline.add_tensors() = tensor;
  }
  return outline;
}

v1::Plan WorkerPlans::For(int worker) const {
  v1::Plan plan = outline_;
  for (int i = 0; i < plan_.programs_size(); ++i) {
    *plan.mutable_programs(i)->mutable_rows(worker) = plan_.programs(i).rows(worker);
  }
  for (int i = 0; i < plan_.stages_size(); ++i) {
    if (plan_.stage_worker(i) != worker) continue;
    const v1::Stage& stage = plan_.stages(i);
    for (int layer = stage.first_layer(); layer < stage.first_layer() + stage.layer_count(); ++layer) {
      *plan.mutable_layers(layer) = plan_.layers(layer);
    }
  }
  return plan;
}

}  // namespace gpipe::orchestrator
