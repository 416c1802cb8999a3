#include "client/cli/plan_facts.h"

#include <algorithm>
#include <map>

#include "common/plan/checkpoint_mode.h"
#include "common/plan/convert.h"
#include "common/plan/gradient_norm.h"
#include "common/plan/shape.h"
#include "common/spec/validator.h"
#include "pipeline/schedule.h"

namespace gpipe::client {
namespace {

void AddStages(const v1::Job& job, v1::Plan& plan) {
  int first = 0;
  for (const int64_t layers : job.balance()) {
    v1::Stage& stage = *plan.add_stages();
    stage.set_first_layer(first);
    stage.set_layer_count(static_cast<int>(layers));
    first += static_cast<int>(layers);
  }
  *plan.mutable_stage_worker() = job.stage_worker();
  for (const v1::Layer& layer : job.spec().model().sequential()) plan.add_layers()->set_kind(spec::LayerKind(layer));
}

// Of a full mini-batch.
absl::StatusOr<pipeline::Schedule> ScheduleOf(const v1::Job& job, int64_t batch_size) {
  const v1::JobSpec& spec = job.spec();
  pipeline::ScheduleOptions options{.stages = job.balance_size(), .training = spec.has_train()};
  options.stage_worker.assign(job.stage_worker().begin(), job.stage_worker().end());
  const bool decided = job.checkpoint() != v1::CHECKPOINT_UNSPECIFIED;  // Not by an orchestrator of before that.
  options.checkpoint = FromProto(decided ? job.checkpoint() : spec.pipeline().checkpoint());
  options.reduce_gradients = spec.has_train() && NeedsGradientNorm(spec.train());
  options.micro_batches = static_cast<int>(std::min(batch_size, spec.pipeline().chunks()));
  return pipeline::MakeSchedule(FromProto(spec.pipeline().schedule()), options);
}

}  // namespace

v1::PlanJobResponse PlanOf(const v1::Job& job) {
  v1::PlanJobResponse response;
  if (job.balance().empty() || job.stage_worker_size() != job.balance_size()) return response;
  const v1::JobSpec& spec = job.spec();
  AddStages(job, *response.mutable_plan());
  *response.mutable_forecast() = job.forecast();
  const int64_t batch_size = spec.has_train() ? spec.train().batch_size() : spec.infer().batch_size();
  const absl::StatusOr<pipeline::Schedule> schedule = ScheduleOf(job, batch_size);
  if (!schedule.ok()) return response;
  v1::Program& program = *response.mutable_plan()->add_programs();
  program.set_kind(spec.has_train() ? v1::PROGRAM_KIND_TRAIN : v1::PROGRAM_KIND_INFER);
  program.set_batch_size(batch_size);
  for (const int64_t size : pipeline::MicroBatchSizes(batch_size, spec.pipeline().chunks())) {
    program.add_micro_batch_sizes(size);
  }
  program.set_cycles(schedule->cycles);
  response.set_grid(pipeline::RenderGrid(*schedule));
  response.set_bubble_share(
      pipeline::BubbleShare(static_cast<int>(schedule->rows.size()), program.micro_batch_sizes_size()));
  return response;
}

bool IsWeighed(const v1::Plan& plan) {
  const auto is_weighed = [](const v1::LayerInfo& layer) { return layer.parameter_bytes() > 0; };
  return !plan.edges().empty() || std::any_of(plan.layers().begin(), plan.layers().end(), is_weighed);
}

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

int64_t MemoryOf(const v1::StageForecast& stage) {
  return stage.state_bytes() + stage.peak_saved_bytes() + stage.working_bytes();
}

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
