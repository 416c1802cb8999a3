#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::HasSubstr;
using v1::Job;
using v1::OrchestratorMessage;
using v1::Worker;

TEST_F(SchedulerTest, PauseStopsGrantsAndResumeContinues) {
  RunJob();
  EXPECT_EQ(Do([&] { return parts_->scheduler.Pause(id_); })->state(), Job::STATE_PAUSED);
  w0_->inbox.clear();
  for (int64_t step = 0; step < 4; ++step) RoundOfBoth(step, step);
  EXPECT_FALSE(w0_->Has(OrchestratorMessage::kGrant));
  EXPECT_EQ(Do([&] { return parts_->scheduler.Resume(id_); })->state(), Job::STATE_RUNNING);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kGrant));
}

TEST_F(SchedulerTest, JobsThatEndedLongAgoOrAreTooManyAreForgotten) {
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(Submit(ParseSpec(kTrainYaml))->id());
    if (i < 3) {
      EXPECT_TRUE(Do([&] { return parts_->scheduler.Cancel(ids.back()); }).ok());
    }
  }
  const auto is_there = [&](int i) { return Do([&] { return parts_->book.Get(ids[i]); }).ok(); };
  Do([&] { return parts_->housekeeper.Start(), 0; });
  Pass(Housekeeper::kLookForJobs, {});
  EXPECT_FALSE(is_there(0));
  EXPECT_TRUE(is_there(1) && is_there(2) && is_there(3));
  Pass(absl::Hours(1), {});
  EXPECT_FALSE(is_there(1) || is_there(2));
  EXPECT_TRUE(is_there(3));
}

TEST_F(SchedulerTest, WhileItIsHeldNothingIsGrantedOrPlaced) {
  RunJob();
  Do([&] { return parts_->scheduler.Hold("the disk is full"), 0; });
  EXPECT_THAT(Get(id_).reason(), HasSubstr("the disk is full"));
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  w0_->inbox.clear();
  for (int64_t step = 0; step < 4; ++step) RoundOfBoth(step, step);
  EXPECT_FALSE(w0_->Has(OrchestratorMessage::kGrant));
  Connect("w2");
  Connect("w3");
  const std::string second = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_EQ(Get(second).state(), Job::STATE_QUEUED);
  Do([&] { return parts_->scheduler.Hold(""), 0; });
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kGrant));
  EXPECT_EQ(Get(second).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, APausedJobIsStillPausedAfterARestart) {
  RunJob();
  ASSERT_TRUE(Do([&] { return parts_->scheduler.Pause(id_); }).ok());
  Restart();
  ConnectBoth();
  SayBothPrepared();
  EXPECT_EQ(Get(id_).state(), Job::STATE_PAUSED);
  EXPECT_FALSE(w0_->Has(OrchestratorMessage::kGrant));
  EXPECT_EQ(Do([&] { return parts_->scheduler.Resume(id_); })->state(), Job::STATE_RUNNING);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kGrant));
}

TEST_F(SchedulerTest, APausedJobThatIsQueuedAgainCanBeResumed) {
  RunJob();
  ASSERT_TRUE(Do([&] { return parts_->scheduler.Pause(id_); }).ok());
  Restart();
  EXPECT_TRUE(Do([&] { return parts_->scheduler.Resume(id_); }).ok());
  ConnectBoth();
  SayBothPrepared();
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kGrant));
}

TEST_F(SchedulerTest, WhatAStateDoesNotAllowIsRefused) {
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_TRUE(absl::IsFailedPrecondition(Do([&] { return parts_->scheduler.Pause(id_); }).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(Do([&] { return parts_->scheduler.Resume(id_); }).status()));
  EXPECT_EQ(Do([&] { return parts_->scheduler.Cancel(id_); })->state(), Job::STATE_CANCELLED);
  auto again = Do([&] { return parts_->scheduler.Cancel(id_); });
  EXPECT_TRUE(absl::IsFailedPrecondition(again.status()));
  EXPECT_THAT(std::string(again.status().message()), HasSubstr("CANCELLED"));
  EXPECT_TRUE(absl::IsNotFound(Do([&] { return parts_->scheduler.Cancel("nobody"); }).status()));
}

TEST_F(SchedulerTest, CancelEndsAnAttemptInEveryState) {
  for (int state = 0; state < 3; ++state) {
    Restart();
    StartJob();
    if (state > 0) SayPrepared(*w0_);
    if (state > 0) SayPrepared(*w1_);
    if (state > 1) {
      EXPECT_TRUE(Do([&] { return parts_->scheduler.Pause(id_); }).ok());
    }
    EXPECT_EQ(Do([&] { return parts_->scheduler.Cancel(id_); })->state(), Job::STATE_CANCELLED);
    EXPECT_TRUE(w1_->Has(OrchestratorMessage::kAbort));
    EXPECT_EQ(StateOf("w1"), Worker::STATE_RELEASING);
    SayReleased(*w0_);
    SayReleased(*w1_);
    EXPECT_EQ(StateOf("w1"), Worker::STATE_IDLE);
  }
}

TEST_F(SchedulerTest, ADrainedWorkerGoesOnWithWhatItRunsAndGetsNoMore) {
  RunJob();
  const auto drain = [&](const char* name) {
    return Do([&] { return parts_->cluster.Drain(name, "it is old"); }).ok();
  };
  ASSERT_TRUE(drain("w1"));
  const std::string second = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  EXPECT_EQ(Get(second).reason(), "needs 2 workers; 1 is connected; w1 is drained");
  ASSERT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(StateOf("w1"), Worker::STATE_IDLE);
  EXPECT_EQ(Get(second).state(), Job::STATE_QUEUED);
  Connect("w2");
  EXPECT_THAT(Get(second).workers(), testing::ElementsAre("w0", "w2"));
}

TEST_F(SchedulerTest, AWorkerIsDrainedByItsNameUntilItIsUndrained) {
  ConnectBoth();
  ASSERT_TRUE(Do([&] { return parts_->cluster.Drain("w1", ""); }).ok());
  Disconnect(*w1_);
  w1_ = &Connect("w1");
  const std::string id = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_EQ(Get(id).state(), Job::STATE_QUEUED);
  Do([&] { return parts_->cluster.Undrain("w1"), 0; });
  EXPECT_EQ(Get(id).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, AWorkerThatLeavesIsNotWaitedFor) {
  RunJob();
  SayLeaving(*w1_);
  EXPECT_EQ(Get(Submit(ParseSpec(kTrainYaml))->id()).reason(), "needs 2 workers; 1 is connected");
}

}  // namespace
}  // namespace gpipe::orchestrator
