#include "tests/unit/worker/test_plan.h"

#include <map>
#include <set>
#include <string>
#include <utility>

#include "common/plan/convert.h"
#include "common/plan/shape.h"
#include "common/spec/validator.h"
#include "gtest/gtest.h"
#include "pipeline/schedule.h"
#include "pipeline/timeline.h"

namespace gpipe::worker {
namespace {

constexpr int kFeatures = 8, kWidth = 16, kClasses = 4;

void AddLinear(v1::Model& model, int in, int out) {
  v1::Linear& linear = *model.add_sequential()->mutable_linear();
  linear.set_in_features(in);
  linear.set_out_features(out);
}

int StageOfLayer(const v1::Plan& plan, int layer) {
  int stage = 0;
  while (layer >= plan.stages(stage).first_layer() + plan.stages(stage).layer_count()) ++stage;
  return stage;
}

void AddEdge(v1::Plan& plan, const std::string& value, int from, int to) {
  v1::Edge& edge = *plan.add_edges();
  edge.set_value(value);
  edge.set_from_stage(from);
  edge.set_to_stage(to);
  *edge.mutable_shape() = BatchShape({kWidth});
  edge.set_dtype(v1::DATA_TYPE_FLOAT32);
  edge.set_requires_grad(true);
}

void AddSkips(const v1::Model& model, v1::Plan& plan) {
  std::map<std::string, int> stashed_by;
  for (int layer = 0; layer < model.sequential_size(); ++layer) {
    if (model.sequential(layer).has_stash()) {
      stashed_by[model.sequential(layer).stash().name()] = StageOfLayer(plan, layer);
    }
    if (!model.sequential(layer).has_pop_add()) continue;
    const std::string& name = model.sequential(layer).pop_add().name();
    const int from = stashed_by.at(name), to = StageOfLayer(plan, layer);
    if (from != to) AddEdge(plan, "skip." + name, from, to);
  }
}

void AddLayersAndCuts(const v1::Model& model, const Cut& cut, v1::Plan& plan) {
  for (int i = 0; i < model.sequential_size(); ++i) plan.add_layers();
  v1::ModelValue& output = *plan.mutable_layers(model.sequential_size() - 1)->add_outputs();
  output.set_name("output");
  *output.mutable_shape() = BatchShape({kClasses});
  output.set_dtype(v1::DATA_TYPE_FLOAT32);
  int first = 0;
  for (size_t i = 0; i < cut.balance.size(); ++i) {
    v1::Stage& stage = *plan.add_stages();
    stage.set_first_layer(first);
    stage.set_layer_count(cut.balance[i]);
    stage.set_needs_backward(true);
    if (i == 0) stage.add_inputs("input");
    first += cut.balance[i];
    plan.add_stage_worker(cut.stage_worker[i]);
    if (i > 0) AddEdge(plan, "layer." + std::to_string(stage.first_layer() - 1), static_cast<int>(i) - 1, i);
  }
  AddSkips(model, plan);
}

pipeline::CheckpointMode ModeOf(v1::Checkpoint checkpoint) {
  if (checkpoint == v1::CHECKPOINT_ALWAYS) return pipeline::CheckpointMode::kAlways;
  return checkpoint == v1::CHECKPOINT_NEVER ? pipeline::CheckpointMode::kNever : pipeline::CheckpointMode::kExceptLast;
}

void AddProgram(const v1::JobSpec& spec, const Cut& cut, v1::ProgramKind kind, int64_t batch_size, v1::Plan& plan) {
  pipeline::ScheduleOptions options;
  const std::vector<int64_t> sizes = pipeline::MicroBatchSizes(batch_size, spec.pipeline().chunks());
  options.stages = static_cast<int>(cut.balance.size());
  options.micro_batches = static_cast<int>(sizes.size());
  options.stage_worker = cut.stage_worker;
  options.training = kind == v1::PROGRAM_KIND_TRAIN;
  options.checkpoint = ModeOf(spec.pipeline().checkpoint());
  options.reduce_gradients = spec.train().grad_clip_norm() > 0;
  pipeline::Schedule schedule = *pipeline::GPipeSchedule(options);
  const std::vector<pipeline::Edge> edges = EdgesOf(plan);
  ASSERT_TRUE(pipeline::AddCommunication(edges, schedule).ok());
  ASSERT_TRUE(pipeline::ValidateSchedule(schedule, edges).ok());

  v1::Program& program = *plan.add_programs();
  program.set_kind(kind);
  program.set_batch_size(batch_size);
  program.mutable_micro_batch_sizes()->Assign(sizes.begin(), sizes.end());
  program.set_cycles(schedule.cycles);
  for (const auto& row : schedule.rows) *program.add_rows() = ToProto(row);
}

v1::ProgramKind KindOf(pipeline::RoundKind kind) {
  if (kind == pipeline::RoundKind::kTrain) return v1::PROGRAM_KIND_TRAIN;
  return kind == pipeline::RoundKind::kEvaluate ? v1::PROGRAM_KIND_EVALUATE : v1::PROGRAM_KIND_INFER;
}

pipeline::TimelineSpec TimelineOf(const v1::JobSpec& spec) {
  pipeline::TimelineSpec timeline;
  if (spec.has_infer()) {
    timeline.samples = spec.infer().random_inputs().shape(0);
    timeline.batch_size = spec.infer().batch_size();
    return timeline;
  }
  timeline.samples = spec.train().dataset().random().samples();
  timeline.batch_size = spec.train().batch_size();
  timeline.steps = spec.train().steps();
  timeline.evaluate_every = spec.train().evaluate().every_steps();
  timeline.evaluation_samples = spec.train().evaluate().dataset().random().samples();
  timeline.checkpoint_every = spec.train().checkpoint_every();
  return timeline;
}

}  // namespace

v1::Model TestModel() {
  v1::Model model;
  AddLinear(model, kFeatures, kWidth);
  model.add_sequential()->mutable_stash()->set_name("x0");
  model.add_sequential()->mutable_tanh();
  AddLinear(model, kWidth, kWidth);
  model.add_sequential()->mutable_dropout()->set_p(0.25);
  model.add_sequential()->mutable_pop_add()->set_name("x0");
  AddLinear(model, kWidth, kClasses);
  model.set_init_seed(11);
  return model;
}

v1::Model ModelWithSkips(int skips, int between) {
  v1::Model model;
  AddLinear(model, kFeatures, kWidth);
  for (int i = 0; i < skips; ++i) model.add_sequential()->mutable_stash()->set_name("x" + std::to_string(i));
  for (int i = 0; i < between; ++i) model.add_sequential()->mutable_tanh();
  for (int i = 0; i < skips; ++i) model.add_sequential()->mutable_pop_add()->set_name("x" + std::to_string(i));
  AddLinear(model, kWidth, kClasses);
  model.set_init_seed(11);
  return model;
}

v1::JobSpec TrainingSpec(int64_t steps, v1::Checkpoint checkpoint) {
  v1::JobSpec spec;
  spec.set_name("test");
  *spec.mutable_model() = TestModel();
  spec.mutable_pipeline()->set_chunks(3);
  spec.mutable_pipeline()->set_checkpoint(checkpoint);
  v1::Train& train = *spec.mutable_train();
  v1::RandomDataset& random = *train.mutable_dataset()->mutable_random();
  random.set_samples(27);
  random.add_input_shape(kFeatures);
  random.set_classes(kClasses);
  random.set_seed(5);
  train.set_batch_size(10);  // Batches of 10, 10 and 7 samples; micro-batches of 4, 3, 3 and 3, 2, 2.
  train.set_steps(steps);
  train.mutable_loss()->mutable_cross_entropy();
  train.mutable_optimizer()->mutable_adam()->set_lr(0.01);
  train.set_grad_clip_norm(0.5);
  train.set_shuffle(true);
  train.set_seed(9);
  v1::RandomDataset& evaluation = *train.mutable_evaluate()->mutable_dataset()->mutable_random();
  evaluation = random;
  evaluation.set_samples(13);
  evaluation.set_seed(6);
  train.mutable_evaluate()->set_every_steps(4);
  return spec::WithDefaults(spec);
}

v1::JobSpec InferenceSpec(int64_t samples, int64_t batch_size) {
  v1::JobSpec spec;
  spec.set_name("test");
  *spec.mutable_model() = TestModel();
  spec.mutable_pipeline()->set_chunks(3);
  v1::RandomInputs& inputs = *spec.mutable_infer()->mutable_random_inputs();
  inputs.add_shape(samples);
  inputs.add_shape(kFeatures);
  inputs.set_seed(2);
  spec.mutable_infer()->set_batch_size(batch_size);
  return spec::WithDefaults(spec);
}

v1::Plan MakePlan(const v1::JobSpec& spec, const Cut& cut) {
  v1::Plan plan;
  AddLayersAndCuts(spec.model(), cut, plan);
  const pipeline::TimelineSpec timeline = TimelineOf(spec);
  *plan.mutable_timeline() = ToProto(timeline);
  std::set<std::pair<v1::ProgramKind, int64_t>> made;
  pipeline::RoundCursor cursor(timeline);
  while (const std::optional<pipeline::Round> round = cursor.Next()) {
    if (pipeline::ComputesNothing(round->kind)) continue;
    if (!made.insert({KindOf(round->kind), round->batch_size}).second) continue;
    AddProgram(spec, cut, KindOf(round->kind), round->batch_size, plan);
  }
  return plan;
}

}  // namespace gpipe::worker
