#ifndef GPIPE_TESTS_UNIT_CLIENT_PLANS_H_
#define GPIPE_TESTS_UNIT_CLIENT_PLANS_H_

#include <string>
#include <vector>

#include "common/plan/shape.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

inline v1::LayerInfo& AddLayer(v1::Plan& plan, const std::string& kind, int64_t parameters = 0) {
  v1::LayerInfo& layer = *plan.add_layers();
  layer.set_kind(kind);
  layer.set_parameter_count(parameters);
  layer.set_parameter_bytes(4 * parameters);
  return layer;
}

inline void AddStage(v1::Plan& plan, int layers, int worker) {
  const int first =
      plan.stages().empty() ? 0 : plan.stages().rbegin()->first_layer() + plan.stages().rbegin()->layer_count();
  v1::Stage& stage = *plan.add_stages();
  stage.set_first_layer(first);
  stage.set_layer_count(layers);
  plan.add_stage_worker(worker);
}

inline void AddEdge(v1::Plan& plan, const std::string& value, int from, int to, int64_t width) {
  v1::Edge& edge = *plan.add_edges();
  edge.set_value(value);
  edge.set_from_stage(from);
  edge.set_to_stage(to);
  *edge.mutable_shape() = BatchShape({width});
  edge.set_dtype(v1::DATA_TYPE_FLOAT32);
}

inline void AddProgram(v1::Plan& plan, int micro_batches, int micro_batch) {
  v1::Program& program = *plan.add_programs();
  program.set_kind(v1::PROGRAM_KIND_TRAIN);
  program.set_batch_size(int64_t{micro_batches} * micro_batch);
  for (int i = 0; i < micro_batches; ++i) program.add_micro_batch_sizes(micro_batch);
}

// Three stages on two workers: a value that skips the second one, a tied parameter on the first and the last, a module
// in two parts, and a forecast.
inline v1::PlanJobResponse ExportedPlan() {
  v1::PlanJobResponse response;
  v1::Plan& plan = *response.mutable_plan();
  v1::ModelTensor& embedding = *AddLayer(plan, "wte", 1048576).add_tensors();
  embedding.set_name("wte.weight");
  embedding.add_aliases("head.weight");
  for (const char* module : {"h.0.attn.c_attn", "h.0.attn", "h.0", "h.1.attn", "h.1.mlp", "h.2.attn", "norm"}) {
    AddLayer(plan, module, std::string(module) == "h.0" ? 0 : 4096);
  }
  *AddLayer(plan, "head", 1048576).add_tensors() = embedding;
  for (int i = 0; i < plan.layers_size(); ++i) plan.mutable_layers(i)->set_first_node(5 * i);
  AddStage(plan, 5, 0);
  AddStage(plan, 2, 0);
  AddStage(plan, 2, 1);
  plan.mutable_stages(0)->add_inputs("input_ids");
  AddEdge(plan, "add_<1>", 0, 1, 256);
  AddEdge(plan, "mask", 0, 1, 16);
  AddEdge(plan, "mask", 0, 2, 16);
  AddEdge(plan, "add_3", 1, 2, 256);
  AddProgram(plan, 8, 4);
  response.set_bubble_share(0.2);
  v1::Forecast& forecast = *response.mutable_forecast();
  forecast.set_step_seconds(0.042);
  forecast.set_bubble_share(0.31);
  for (const double seconds : {0.001, 0.002, 0.0005}) {
    v1::StageForecast& stage = *forecast.add_stages();
    stage.set_forward_seconds(seconds);
    stage.set_backward_seconds(2 * seconds);
    stage.set_state_bytes(4 << 20);
    stage.set_peak_saved_bytes(1 << 20);
  }
  return response;
}

// A layer list of two stages, without a forecast.
inline v1::PlanJobResponse LayerListPlan() {
  v1::PlanJobResponse response;
  v1::Plan& plan = *response.mutable_plan();
  for (int i = 0; i < 20; ++i) AddLayer(plan, i % 2 == 0 ? "linear" : "relu", i % 2 == 0 ? 1000 : 0);
  AddStage(plan, 16, 0);
  AddStage(plan, 4, 1);
  AddEdge(plan, "layer.15", 0, 1, 64);
  AddProgram(plan, 2, 8);
  response.set_bubble_share(1.0 / 3);
  return response;
}

}  // namespace gpipe::client

#endif  // GPIPE_TESTS_UNIT_CLIENT_PLANS_H_
