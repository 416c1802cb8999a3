#include "orchestrator/planning/planner.h"

#include <set>

#include "common/plan/convert.h"
#include "common/plan/shape.h"
#include "orchestrator/planning/balance.h"
#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<int64_t> BalanceOf(const v1::JobSpec& spec) {
  return {spec.pipeline().balance().begin(), spec.pipeline().balance().end()};
}

struct Planned {
  explicit Planned(v1::JobSpec with, InputFacts data, int workers, int frozen_layers = 0, int64_t first_step = 0)
      : spec(std::move(with)),
        facts(std::move(data)),
        layers(LayersFor(spec.model(), SampleShape(facts.inputs[0].shape()), frozen_layers)) {
    auto made = MakePlan({spec, facts, layers, BalanceOf(spec), workers, first_step});
    EXPECT_TRUE(made.ok()) << made.status();
    if (made.ok()) plan = *made;
  }
  std::vector<std::string> Edges() const {
    std::vector<std::string> text;
    for (const v1::Edge& edge : plan.edges()) {
      text.push_back(absl::StrCat(edge.value(), " ", edge.from_stage(), ">", edge.to_stage(),
                                  edge.requires_grad() ? " grad" : ""));
    }
    return text;
  }
  std::vector<std::string> Programs() const {
    std::vector<std::string> text;
    for (const v1::Program& program : plan.programs()) {
      text.push_back(absl::StrCat(v1::ProgramKind_Name(program.kind()).substr(13), " ", program.batch_size()));
    }
    return text;
  }
  v1::JobSpec spec;
  InputFacts facts;
  LayerInfos layers;
  v1::Plan plan;
};

TEST(PlannerTest, ASkipGoesStraightFromItsStashToItsPop) {
  const Planned planned(ParseSpec(kSkipYaml), Facts(100, {32}), 3);
  EXPECT_THAT(planned.Edges(), ElementsAre("layer.2 0>1 grad", "layer.4 1>2 grad", "skip.x0 0>2 grad"));
  EXPECT_THAT(SampleShape(planned.plan.edges(2).shape()), ElementsAre(64));
  EXPECT_THAT(planned.plan.stage_worker(), ElementsAre(0, 1, 2));
  EXPECT_EQ(planned.plan.stages(1).first_layer(), 3);
  EXPECT_EQ(planned.plan.stages(1).layer_count(), 2);
}

TEST(PlannerTest, AnEvaluationProgramHasEdgesOfItsOwnBetweenTheSameStages) {
  const v1::JobSpec spec = ParseSpec(kSkipYaml);
  InputFacts facts = Facts(64, {32});
  facts.evaluation_samples = 32;
  LayerInfos layers = LayersFor(spec.model(), {32});
  for (v1::LayerInfo& layer : layers) layer.mutable_evaluation();
  v1::ModelValue& value = *layers.front().mutable_evaluation()->add_makes();
  *value.mutable_shape() = layers.front().makes(0).shape();
  value.set_name("hidden");
  layers.back().mutable_evaluation()->add_reads("hidden");
  layers.back().mutable_evaluation()->add_reads("mask");
  const auto plan = MakePlan({spec, facts, layers, BalanceOf(spec), 3});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->evaluation_edges_size(), 1);
  EXPECT_EQ(plan->evaluation_edges(0).value(), "hidden");
  EXPECT_EQ(plan->evaluation_edges(0).from_stage(), 0);
  EXPECT_EQ(plan->evaluation_edges(0).to_stage(), 2);
  EXPECT_THAT(plan->stages(2).evaluation_inputs(), ElementsAre("mask"));
  EXPECT_THAT(plan->stages(2).inputs(), IsEmpty());
  for (const v1::Program& program : plan->programs()) {
    std::set<int> edges;
    for (const v1::Row& row : program.rows()) {
      for (const v1::Action& action : row.actions()) {
        if (action.kind() == v1::ACTION_KIND_SEND_FORWARD) edges.insert(action.edge());
      }
    }
    const bool evaluates = program.kind() == v1::PROGRAM_KIND_EVALUATE;
    EXPECT_EQ(edges, evaluates ? std::set<int>({plan->edges_size()}) : std::set<int>({0, 1, 2}));
  }
}

TEST(PlannerTest, ASkipWithinOneStageIsNoEdge) {
  v1::JobSpec spec = ParseSpec(kSkipYaml);
  spec.mutable_pipeline()->mutable_balance()->Set(0, 1);
  spec.mutable_pipeline()->mutable_balance()->Set(1, 6);
  spec.mutable_pipeline()->mutable_balance()->Set(2, 2);
  EXPECT_THAT(Planned(spec, Facts(100, {32}), 3).Edges(), ElementsAre("layer.0 0>1 grad", "layer.6 1>2 grad"));
}

TEST(PlannerTest, WhatComesOutOfFrozenLayersNeedsNoGradient) {
  const Planned planned(ParseSpec(kSkipYaml), Facts(100, {32}), 3, /*frozen_layers=*/3);
  EXPECT_THAT(planned.Edges(), ElementsAre("layer.2 0>1", "layer.4 1>2 grad", "skip.x0 0>2"));
  EXPECT_FALSE(planned.plan.stages(0).needs_backward());
  EXPECT_TRUE(planned.plan.stages(1).needs_backward());
}

TEST(PlannerTest, AStageWithoutParametersPassesTheGradientOn) {
  const Planned planned(ParseSpec(kSkipYaml), Facts(100, {32}), 3, /*frozen_layers=*/0);
  v1::JobSpec spec = planned.spec;
  LayerInfos layers = planned.layers;
  for (int i = 3; i < 5; ++i) layers[i].set_trainable_count(0);
  auto plan = MakePlan({spec, planned.facts, layers, BalanceOf(spec), 3, 0});
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(plan->stages(1).needs_backward());
}

TEST(PlannerTest, AValueWithoutGradientHasAnEdgeWithout) {
  const Planned planned(ParseSpec(kSkipYaml), Facts(100, {32}), 3);
  LayerInfos layers = planned.layers;
  layers[2].mutable_makes(0)->set_requires_grad(false);
  auto plan = MakePlan({planned.spec, planned.facts, layers, BalanceOf(planned.spec), 3, 0});
  ASSERT_TRUE(plan.ok());
  EXPECT_FALSE(plan->edges(0).requires_grad());
}

TEST(PlannerTest, AnEdgeLiesInMemoryAsItsValueDoes) {
  const v1::JobSpec spec = ParseSpec(kTrainYaml);
  const InputFacts facts = Facts(20, {4});
  LayerInfos layers = LayersFor(spec.model(), {4}, 0);
  for (const int dim : {1, 0}) layers[1].mutable_makes(0)->add_dimension_order(dim);
  const auto plan = MakePlan({spec, facts, layers, BalanceOf(spec), 2});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->edges(0).dimension_order(), ElementsAre(1, 0));
}

TEST(PlannerTest, NeighbouringStagesShareAWorkerAsEvenlyAsCanBe) {
  EXPECT_THAT(Planned(ParseSpec(kSkipYaml), Facts(100, {32}), 2).plan.stage_worker(), ElementsAre(0, 0, 1));
  EXPECT_THAT(Planned(ParseSpec(kSkipYaml), Facts(100, {32}), 1).plan.stage_worker(), ElementsAre(0, 0, 0));
  EXPECT_EQ(Planned(ParseSpec(kSkipYaml), Facts(100, {32}), 2).plan.programs(0).rows_size(), 2);
}

TEST(PlannerTest, ThereIsAProgramForEachSizeThatIsMet) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  InputFacts facts = Facts(20, {4});
  EXPECT_THAT(Planned(spec, facts, 2).Programs(), ElementsAre("TRAIN 8", "TRAIN 4"));
  facts.evaluation_samples = 19;
  EXPECT_THAT(Planned(spec, facts, 2).Programs(), ElementsAre("TRAIN 8", "TRAIN 4", "EVALUATE 8", "EVALUATE 3"));
  spec.mutable_train()->set_drop_last(true);
  EXPECT_THAT(Planned(spec, facts, 2).Programs(), ElementsAre("TRAIN 8", "EVALUATE 8", "EVALUATE 3"));
  spec.mutable_train()->set_drop_last(false);
  spec.mutable_train()->set_steps(2);
  facts.evaluation_samples = 0;
  EXPECT_THAT(Planned(spec, facts, 2).Programs(), ElementsAre("TRAIN 8"));
  EXPECT_THAT(Planned(spec, Facts(5, {4}), 2).Programs(), ElementsAre("TRAIN 5"));
}

TEST(PlannerTest, ProgramsAreMadeByTheScheduleOfTheSpec) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  EXPECT_EQ(spec.pipeline().schedule(), v1::SCHEDULE_KIND_GPIPE);
  spec.mutable_pipeline()->set_schedule(static_cast<v1::ScheduleKind>(9));
  const InputFacts facts = Facts(20, {4});
  const LayerInfos layers = LayersFor(spec.model(), {4});
  const absl::Status status = MakePlan({spec, facts, layers, BalanceOf(spec), 2}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("no schedule of kind 9"));
}

TEST(PlannerTest, InferenceRunsForwardOnly) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_infer()->set_batch_size(8);
  const Planned planned(spec, Facts(20, {4}), 2);
  EXPECT_THAT(planned.Programs(), ElementsAre("INFER 8", "INFER 4"));
  EXPECT_EQ(planned.plan.programs(0).cycles(), 5);
  EXPECT_EQ(planned.plan.timeline().steps(), 0);
}

TEST(PlannerTest, MicroBatchesAreUnevenAndAtMostAsManyAsSamples) {
  const Planned planned(ParseSpec(kTrainYaml), Facts(11, {4}), 2);
  EXPECT_THAT(planned.plan.programs(0).micro_batch_sizes(), ElementsAre(2, 2, 2, 2));
  EXPECT_THAT(planned.plan.programs(1).micro_batch_sizes(), ElementsAre(1, 1, 1));
}

TEST(PlannerTest, EpochsBecomeSteps) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_train()->clear_steps();
  spec.mutable_train()->set_epochs(4);
  EXPECT_EQ(TotalSteps(spec, Facts(20, {4})), 12);
  spec.mutable_train()->set_drop_last(true);
  EXPECT_EQ(TotalSteps(spec, Facts(20, {4})), 8);
  EXPECT_EQ(Planned(spec, Facts(20, {4}), 2, 0, 5).plan.timeline().first_step(), 5);
}

TEST(PlannerTest, WhatCannotBeLaidOutIsRefusedByField) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_train()->set_batch_size(int64_t{1} << 40);
  spec.mutable_pipeline()->set_chunks(int64_t{1} << 40);
  absl::Status status = CheckSize(spec, Facts(int64_t{1} << 50, {4}));
  EXPECT_THAT(std::string(status.message()), HasSubstr("pipeline.chunks"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("train.dataset"));
  // The largest numbers a field takes, of which sums would not fit.
  spec.mutable_train()->set_batch_size(std::numeric_limits<int64_t>::max());
  spec.mutable_pipeline()->set_chunks(4);
  EXPECT_TRUE(CheckSize(spec, Facts(20, {4})).ok());
  EXPECT_EQ(LargestMicroBatch(spec, Facts(20, {4})), 5);
  status = CheckSize(spec, Facts(std::numeric_limits<int64_t>::max(), {4}));
  EXPECT_THAT(std::string(status.message()), HasSubstr("train.dataset"));
  // Evaluation has micro-batches of its own.
  spec.mutable_train()->set_batch_size(6'000'000);
  spec.mutable_pipeline()->set_chunks(6'000'000);
  InputFacts facts = Facts(1, {4});
  EXPECT_TRUE(CheckSize(spec, facts).ok());
  facts.evaluation_samples = 6'000'000;
  status = CheckSize(spec, facts);
  EXPECT_THAT(std::string(status.message()), HasSubstr("pipeline.chunks"));
  spec = ParseSpec(kTrainYaml);
  spec.mutable_train()->clear_steps();
  spec.mutable_train()->set_epochs(std::numeric_limits<int64_t>::max());
  status = CheckSize(spec, Facts(20, {4}));
  EXPECT_THAT(std::string(status.message()), HasSubstr("train.epochs"));
}

TEST(PlannerTest, EpochsAreLongerThanTheWarmUp) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_train()->clear_steps();
  spec.mutable_train()->set_epochs(3);
  spec.mutable_train()->set_batch_size(8);
  spec.mutable_train()->mutable_lr_schedule()->mutable_warmup_linear()->set_warmup_steps(8);
  EXPECT_TRUE(CheckSize(spec, Facts(20, {4})).ok());  // 9 steps.
  spec.mutable_train()->mutable_lr_schedule()->mutable_warmup_linear()->set_warmup_steps(9);
  const absl::Status status = CheckSize(spec, Facts(20, {4}));
  EXPECT_THAT(
      std::string(status.message()),
      HasSubstr("train.lr_schedule.warmup_linear.warmup_steps: must be fewer than the 9 steps that the 3 epochs"));
}

TEST(PlannerTest, CountsWorkers) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  EXPECT_EQ(WorkersFor(spec, 1), 0);
  EXPECT_EQ(WorkersFor(spec, 5), 2);
  spec.mutable_pipeline()->set_workers(1);
  EXPECT_EQ(WorkersFor(spec, 1), 1);
  spec.mutable_pipeline()->clear_balance();
  spec.mutable_pipeline()->set_workers(0);
  EXPECT_EQ(WorkersFor(spec, 0), 0);
  EXPECT_EQ(WorkersFor(spec, 2), 2);
  EXPECT_EQ(WorkersFor(spec, 9), 3);
  EXPECT_TRUE(NeedsMeasuring(spec, 3, 2));
  EXPECT_FALSE(NeedsMeasuring(spec, 3, 1));
  EXPECT_FALSE(NeedsMeasuring(spec, 3, 3));
}

TEST(PlannerTest, AsksAboutTheLossOnlyInTraining) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_train()->add_freeze("0.");
  v1::Inspect inspect = MakeInspect(spec, Facts(20, {4}), {}, true);
  EXPECT_TRUE(inspect.loss().has_cross_entropy());
  EXPECT_THAT(inspect.freeze(), ElementsAre("0."));
  EXPECT_EQ(inspect.profile_micro_batch(), 2);
  spec.mutable_model()->mutable_exported()->set_path("m.pt2");
  EXPECT_FALSE(MakeInspect(spec, Facts(20, {4}), {}, true).evaluate());
  spec.mutable_train()->mutable_evaluate();
  EXPECT_TRUE(MakeInspect(spec, Facts(20, {4}), {}, true).evaluate());
  spec.mutable_infer()->set_batch_size(8);
  inspect = MakeInspect(spec, Facts(20, {4}), {}, false);
  EXPECT_FALSE(inspect.has_loss());
  EXPECT_THAT(inspect.freeze(), IsEmpty());
  EXPECT_EQ(inspect.profile_micro_batch(), 0);
}

}  // namespace
}  // namespace gpipe::orchestrator
