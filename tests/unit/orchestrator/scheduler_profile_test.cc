// Cuts by measured times: which workers are asked, and what is remembered.

#include "orchestrator/planning/balance.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;

class SchedulerProfileTest : public SchedulingTest {
 protected:
  SchedulerProfileTest() {
    spec_.mutable_pipeline()->clear_balance();
    spec_.mutable_pipeline()->set_workers(2);
  }

  v1::JobSpec spec_ = ParseSpec(kTrainYaml);
};

TEST_F(SchedulerProfileTest, OneWorkerOfEachKindIsMeasured) {
  for (const char* name : {"w0", "w1", "w2"}) Connect(name, "cpu", "EPYC");
  Connect("x0", "cpu", "Xeon");
  spec_.mutable_model()->add_sequential()->mutable_relu();
  spec_.mutable_model()->add_sequential()->mutable_relu();
  spec_.mutable_pipeline()->set_workers(4);
  const std::string id = Submit(spec_)->id();
  EXPECT_EQ(Get(id).state(), Job::STATE_STARTING);
  EXPECT_EQ(inspections_, 3);  // One was to check the model.
}

TEST_F(SchedulerProfileTest, WorkersOfDifferentSpeedGetDifferentShares) {
  FakeWorker& first = Connect("w0", "cpu", "EPYC");
  FakeWorker& last = Connect("x0", "cpu", "Xeon");
  slow_workers_ = {"w0"};
  EXPECT_THAT(Get(Submit(spec_)->id()).balance(), ElementsAre(1, 2));
  EXPECT_EQ(first.plan.layers(0).forward_nanos(), 3000);  // As the worker that gets it has measured it.
  EXPECT_EQ(last.plan.layers(2).forward_nanos(), 1000);
}

TEST_F(SchedulerProfileTest, TheSlowerWorkerAtTheEndGetsLess) {
  Connect("w0", "cpu", "EPYC");
  Connect("x0", "cpu", "Xeon");
  slow_workers_ = {"x0"};
  EXPECT_THAT(Get(Submit(spec_)->id()).balance(), ElementsAre(2, 1));
}

TEST_F(SchedulerProfileTest, TheJobSaysWhatToExpectAlsoAfterARestart) {
  Connect("w0");
  Connect("w1");
  const std::string id = Submit(spec_)->id();
  EXPECT_EQ(Get(id).forecast().stages_size(), 2);
  EXPECT_GT(Get(id).forecast().step_seconds(), 0);
  Restart();
  EXPECT_EQ(Get(id).forecast().stages_size(), 2);
}

TEST_F(SchedulerProfileTest, AJobThatIsNotMeasuredHasNoForecast) {
  Connect("w0");
  Connect("w1");
  EXPECT_FALSE(Get(Submit(ParseSpec(kTrainYaml))->id()).has_forecast());
}

TEST_F(SchedulerProfileTest, ProfilesAreRememberedByModelShapeAndKindAlsoAfterARestart) {
  Connect("w0");
  Connect("w1");
  Submit(spec_).IgnoreError();
  EXPECT_EQ(inspections_, 2);
  Restart();
  Connect("w0");
  Connect("w1");
  EXPECT_EQ(inspections_, 3);  // The model is looked at, not measured.
  Connect("w2");
  Connect("w3");
  const std::string second = Submit(spec_)->id();
  EXPECT_EQ(Get(second).state(), Job::STATE_STARTING);
  EXPECT_EQ(inspections_, 3);

  spec_.mutable_pipeline()->set_chunks(2);  // Other micro-batches, and then another kind of worker.
  Connect("w4");
  Connect("w5");
  EXPECT_EQ(Get(Submit(spec_)->id()).state(), Job::STATE_STARTING);
  EXPECT_EQ(inspections_, 4);
  Connect("x0", "cpu", "Xeon");
  Connect("x1", "cpu", "Xeon");
  EXPECT_EQ(Get(Submit(spec_)->id()).state(), Job::STATE_STARTING);
  EXPECT_EQ(inspections_, 5);
}

TEST_F(SchedulerProfileTest, APlanTakesAndLeavesProfiles) {
  Connect("w0");
  Connect("w1");
  const auto plan = Plan(spec_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->forecast().stages_size(), 2);
  EXPECT_EQ(inspections_, 2);
  Submit(spec_).IgnoreError();
  EXPECT_EQ(inspections_, 2);
  EXPECT_TRUE(Plan(spec_).ok());  // Nobody is idle now.
  spec_.mutable_pipeline()->set_chunks(2);
  const absl::Status busy = Plan(spec_).status();
  EXPECT_TRUE(absl::IsUnavailable(busy));
  EXPECT_THAT(std::string(busy.message()), HasSubstr("no worker is idle that could measure the model"));
}

TEST_F(SchedulerProfileTest, APlanIsForTheWorkersThatTheJobWouldGet) {
  Connect("w0", "cpu", "EPYC");
  Connect("x0", "cpu", "Xeon");
  slow_workers_ = {"w0"};
  const auto plan = Plan(spec_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->plan().stages(0).layer_count(), 1);
  Connect("g0", "cuda:0", "H200");  // One is too few.
  EXPECT_EQ(inspections_, 3);
  EXPECT_EQ(Plan(spec_)->plan().stages(0).layer_count(), 1);
  EXPECT_EQ(inspections_, 3);
  Connect("g1", "cuda:1", "H200");
  EXPECT_TRUE(Plan(spec_).ok());
  EXPECT_EQ(inspections_, 4);
}

}  // namespace
}  // namespace gpipe::orchestrator
