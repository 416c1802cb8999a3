#include "client/cli/plan_facts.h"

#include <algorithm>
#include <map>

#include "common/plan/shape.h"

namespace gpipe::client {

bool IsExported(const v1::Plan& plan) {
  return std::any_of(plan.layers().begin(), plan.layers().end(),
                     [](const v1::LayerInfo& layer) { return layer.first_node() > 0; });
}

std::vector<const v1::LayerInfo*> LayersOf(const v1::Plan& plan, const v1::Stage& stage) {
  std::vector<const v1::LayerInfo*> layers;
  const int end = std::min(stage.first_layer() + stage.layer_count(), plan.layers_size());
  for (int i = stage.first_layer(); i < end; ++i) layers.push_back(&plan.layers(i));
  return layers;
}

StageTotals TotalsOf(const v1::Plan& plan, int stage) {
  StageTotals totals;
  for (const v1::LayerInfo* layer : LayersOf(plan, plan.stages(stage))) {
    totals.parameters += layer->parameter_count();
    totals.parameter_bytes += layer->parameter_bytes();
  }
  for (const v1::Edge& edge : plan.edges()) {
    if (edge.from_stage() == stage) totals.sent_bytes += BytesOf(plan, edge);
  }
  return totals;
}

int WorkerOf(const v1::Plan& plan, int stage) {
  return stage < plan.stage_worker_size() ? plan.stage_worker(stage) : -1;
}

const v1::StageForecast* ForecastOf(const v1::PlanJobResponse& response, int stage) {
  return stage < response.forecast().stages_size() ? &response.forecast().stages(stage) : nullptr;
}

int64_t MemoryOf(const v1::StageForecast& stage) { return stage.state_bytes() + stage.peak_saved_bytes(); }

double SecondsOf(const v1::StageForecast& stage) { return stage.forward_seconds() + stage.backward_seconds(); }

const v1::Program* MainProgram(const v1::Plan& plan) {
  const v1::Program* main = nullptr;
  for (const v1::Program& program : plan.programs()) {
    if (program.kind() == v1::PROGRAM_KIND_EVALUATE || program.kind() == v1::PROGRAM_KIND_CHECK_LOSS) continue;
    if (main == nullptr || program.batch_size() > main->batch_size()) main = &program;
  }
  return main;
}

int64_t LargestMicroBatch(const v1::Plan& plan) {
  const v1::Program* program = MainProgram(plan);
  if (program == nullptr || program->micro_batch_sizes().empty()) return 0;
  return *std::max_element(program->micro_batch_sizes().begin(), program->micro_batch_sizes().end());
}

int64_t BytesOf(const v1::Plan& plan, const v1::Edge& edge) {
  return BytesFor(edge.shape(), edge.dtype(), LargestMicroBatch(plan));
}

bool IsSkip(const v1::Edge& edge) { return edge.to_stage() > edge.from_stage() + 1; }

std::vector<TiedTensor> TiedTensors(const v1::Plan& plan) {
  std::map<std::string, TiedTensor> tensors;
  for (int stage = 0; stage < plan.stages_size(); ++stage) {
    for (const v1::LayerInfo* layer : LayersOf(plan, plan.stages(stage))) {
      for (const v1::ModelTensor& tensor : layer->tensors()) {
        TiedTensor& tied = tensors[tensor.name()];
        tied.names.assign({tensor.name()});
        tied.names.insert(tied.names.end(), tensor.aliases().begin(), tensor.aliases().end());
        if (tied.stages.empty() || tied.stages.back() != stage) tied.stages.push_back(stage);
      }
    }
  }
  std::vector<TiedTensor> result;
  for (auto& [name, tied] : tensors) {
    if (tied.names.size() > 1 || tied.stages.size() > 1) result.push_back(std::move(tied));
  }
  return result;
}

}  // namespace gpipe::client
