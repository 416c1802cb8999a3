#include "orchestrator/planning/worker_plans.h"

#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {
namespace {

using ::google::protobuf::util::MessageDifferencer;

// A stage a worker; a tensor that the first and the last layer share.
v1::Plan SkipPlan() {
  const v1::JobSpec spec = ParseSpec(kSkipYaml);
  InputFacts facts = Facts(320, {32});
  LayerInfos layers = LayersFor(spec.model(), {32});
  for (int i = 0; i < static_cast<int>(layers.size()); ++i) {
    layers[i].set_first_node(10 * i);
    layers[i].add_tensors()->set_name(absl::StrCat(i, ".weight"));
  }
  layers.front().add_tensors()->set_name("tied");
  layers.back().add_tensors()->set_name("tied");
  PlanRequest request{.spec = spec, .facts = facts, .layers = layers, .balance = {3, 2, 4}, .workers = 3};
  auto plan = MakePlan(request);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *std::move(plan) : v1::Plan();
}

bool IsOf(const v1::Plan& plan, int worker, int layer) {
  const v1::Stage& stage = plan.stages(worker);
  return layer >= stage.first_layer() && layer < stage.first_layer() + stage.layer_count();
}

TEST(WorkerPlansTest, EachWorkerGetsItsOwnRowOfEveryProgram) {
  v1::Plan plan = SkipPlan();
  const WorkerPlans plans(plan);
  for (int worker = 0; worker < 3; ++worker) {
    const v1::Plan own = plans.For(worker);
    ASSERT_EQ(own.programs_size(), plan.programs_size());
    for (int i = 0; i < plan.programs_size(); ++i) {
      ASSERT_EQ(own.programs(i).rows_size(), 3);
      for (int row = 0; row < 3; ++row) {
        const v1::Row& expected = row == worker ? plan.programs(i).rows(row) : v1::Row::default_instance();
        EXPECT_TRUE(MessageDifferencer::Equals(own.programs(i).rows(row), expected)) << worker << " " << row;
      }
    }
  }
}

TEST(WorkerPlansTest, EachWorkerGetsItsOwnLayersAndAnOutlineOfTheOthers) {
  v1::Plan plan = SkipPlan();
  const WorkerPlans plans(plan);
  for (int worker = 0; worker < 3; ++worker) {
    const v1::Plan own = plans.For(worker);
    ASSERT_EQ(own.layers_size(), plan.layers_size());
    for (int i = 0; i < plan.layers_size(); ++i) {
      SCOPED_TRACE(absl::StrCat(worker, " ", i));
      EXPECT_EQ(own.layers(i).first_node(), 10 * i);
      EXPECT_EQ(own.layers(i).outputs_size(), i == 8 ? 1 : 0);
      if (IsOf(plan, worker, i)) {
        EXPECT_TRUE(MessageDifferencer::Equals(own.layers(i), plan.layers(i)));
      } else {
        EXPECT_EQ(own.layers(i).makes_size(), 0);
        EXPECT_EQ(own.layers(i).tensors_size(), i == 0 || i == 8 ? 1 : 0);  // The shared one.
      }
    }
  }
}

// But for rows, layers and the timeline it is the plan: what is new in Plan must not be forgotten here.
TEST(WorkerPlansTest, EverythingElseIsThePlans) {
  v1::Plan plan = SkipPlan();
  v1::Plan own = WorkerPlans(plan).For(1);
  EXPECT_TRUE(plan.has_timeline());
  EXPECT_FALSE(own.has_timeline());
  for (v1::Plan* each : {&plan, &own}) {
    each->clear_layers();
    each->clear_timeline();
    for (v1::Program& program : *each->mutable_programs()) program.clear_rows();
  }
  EXPECT_TRUE(MessageDifferencer::Equals(own, plan));
}

}  // namespace
}  // namespace gpipe::orchestrator
