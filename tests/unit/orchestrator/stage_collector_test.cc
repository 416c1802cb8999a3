#include "orchestrator/scheduling/stage_collector.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

// Three stages, the first two on worker 0.
v1::Plan ThreeStages() {
  v1::Plan plan;
  for (const int worker : {0, 0, 1}) {
    plan.add_stages()->set_layer_count(1);
    plan.add_stage_worker(worker);
  }
  return plan;
}

v1::ActionDone Did(int stage, v1::ActionKind kind, int micro_batch, double start, double seconds, int64_t round = 0) {
  v1::ActionDone action;
  action.set_round(round);
  action.set_stage(stage);
  action.set_kind(kind);
  action.set_micro_batch(micro_batch);
  action.set_start_nanos(static_cast<int64_t>(start * 1e9));
  action.set_nanos(static_cast<int64_t>(seconds * 1e9));
  return action;
}

v1::RoundDone Report(double wall_seconds, int64_t round = 0) {
  v1::RoundDone done;
  done.set_round(round);
  done.set_wall_nanos(static_cast<int64_t>(wall_seconds * 1e9));
  return done;
}

void AddTraffic(v1::RoundDone& done, int worker, double wait_seconds) {
  v1::PeerTraffic& peer = *done.add_traffic();
  peer.set_worker(worker);
  peer.set_wait_nanos(static_cast<int64_t>(wait_seconds * 1e9));
}

class StageCollectorTest : public testing::Test {
 protected:
  const v1::Plan plan_ = ThreeStages();
  StageCollector collector_{plan_, {"a", "b", "c"}};
};

TEST_F(StageCollectorTest, BusyAndIdleAreTheWholeStep) {
  ASSERT_TRUE(collector_.Add(0, Did(0, v1::ACTION_KIND_FORWARD, 0, 0, 1)).ok());
  ASSERT_TRUE(collector_.Add(0, Did(1, v1::ACTION_KIND_FORWARD, 0, 1, 2)).ok());
  ASSERT_TRUE(collector_.Add(1, Did(2, v1::ACTION_KIND_RECOMPUTE, 0, 3, 0.25)).ok());
  ASSERT_TRUE(collector_.Add(1, Did(2, v1::ACTION_KIND_BACKWARD, 0, 3.25, 1)).ok());
  ASSERT_TRUE(collector_.Add(1, Did(2, v1::ACTION_KIND_OPTIMIZER, -1, 5, 0.5)).ok());
  v1::RoundDone last = Report(6);
  AddTraffic(last, 2, 0.5);
  AddTraffic(last, 0, 2.5);
  EXPECT_FALSE((*collector_.Add(0, Report(10))).has_value());
  EXPECT_FALSE((*collector_.Add(1, last)).has_value());
  const std::optional<StepDetail> detail = *collector_.Add(2, Report(1));
  ASSERT_TRUE(detail.has_value());
  ASSERT_THAT(detail->stages.stages(), SizeIs(3));
  const v1::StageDone& first = detail->stages.stages(0);
  EXPECT_EQ(first.worker(), "a");
  EXPECT_DOUBLE_EQ(first.forward(), 1);
  EXPECT_DOUBLE_EQ(first.idle(), 7) << "its worker computes another stage for two seconds";
  const v1::StageDone& third = detail->stages.stages(2);
  EXPECT_DOUBLE_EQ(third.recompute() + third.backward() + third.optimizer() + third.idle(), 10);
  EXPECT_EQ(third.traffic(0).worker(), 0) << "longest first";
  EXPECT_THAT(detail->actions, SizeIs(5));
}

TEST_F(StageCollectorTest, RefusesForeignStagesAndWorkers) {
  EXPECT_FALSE(collector_.Add(0, Did(2, v1::ACTION_KIND_FORWARD, 0, 0, 1)).ok());
  EXPECT_FALSE(collector_.Add(0, Did(3, v1::ACTION_KIND_FORWARD, 0, 0, 1)).ok());
  EXPECT_FALSE(collector_.Add(0, Did(-1, v1::ACTION_KIND_FORWARD, 0, 0, 1)).ok());
  for (const int worker : {-1, 3}) {
    v1::RoundDone done = Report(1);
    AddTraffic(done, worker, 1);
    EXPECT_FALSE(collector_.Add(0, done).ok());
  }
}

TEST_F(StageCollectorTest, KeepsNoMoreActionsThanItMay) {
  const v1::ActionDone action = Did(0, v1::ACTION_KIND_FORWARD, 0, 0, 1e-9);
  for (size_t i = 0; i <= StageCollector::kMaxActions; ++i) ASSERT_TRUE(collector_.Add(0, action).ok());
  ASSERT_TRUE(collector_.Add(0, Did(0, v1::ACTION_KIND_FORWARD, 0, 0, 1, /*round=*/1)).ok());
  for (const int64_t round : {0, 1}) {
    ASSERT_TRUE(collector_.Add(0, Report(1, round)).ok());
    ASSERT_TRUE(collector_.Add(1, Report(1, round)).ok());
  }
  const std::optional<StepDetail> large = *collector_.Add(2, Report(1, 0));
  EXPECT_THAT(large->actions, IsEmpty());
  EXPECT_NEAR(large->stages.stages(0).forward(), 1e-9 * (StageCollector::kMaxActions + 1), 1e-9) << "all are added up";
  EXPECT_THAT((*collector_.Add(2, Report(1, 1)))->actions, SizeIs(1)) << "there is room again for the next round";
}

}  // namespace
}  // namespace gpipe::orchestrator
