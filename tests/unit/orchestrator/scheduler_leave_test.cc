// Checkpoints that are asked for: by a client, and by a worker that wants to leave.

#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Property;
using v1::Job;
using v1::OrchestratorMessage;

// The workers know of the first ten steps, of thirty.
class LeaveTest : public SchedulerTest {
 protected:
  static constexpr int64_t kTold = 10;

  void SetUp() override {
    SchedulerTest::SetUp();
    v1::JobSpec spec = ParseSpec(kTrainYaml);
    spec.mutable_train()->set_steps(30);
    RunJob(spec);
  }
  void Steps(int64_t first, int64_t end) {
    for (int64_t step = first; step < end; ++step) RoundOfBoth(step, step);
  }
  // Of all rounds that a worker was told, in their order.
  static std::vector<v1::RoundKind> KindsTold(const FakeWorker& worker) {
    std::vector<v1::RoundKind> kinds;
    for (const v1::Round& round : worker.first.rounds()) kinds.push_back(round.kind());
    for (const OrchestratorMessage& message : worker.inbox) {
      for (const v1::Round& round : message.grant().next().rounds()) kinds.push_back(round.kind());
    }
    return kinds;
  }
  void ReleaseBoth() {
    SayReleased(*w0_);
    SayReleased(*w1_);
  }
};

TEST_F(LeaveTest, WhatTheJobHasDoneIsSavedBeforeAWorkerLeaves) {
  SayLeaving(*w1_);
  Steps(0, kTold);
  EXPECT_EQ(KindsTold(*w0_).back(), v1::ROUND_KIND_CHECKPOINT);
  EXPECT_EQ(KindsTold(*w0_).size(), kTold + 1) << "and nothing after it";
  EXPECT_FALSE(w1_->Has(OrchestratorMessage::kAbort));
  SaveOfBoth(kTold);
  ReleaseBoth();
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  EXPECT_THAT(Get(id_).reason(), HasSubstr("restarts in 1 s: worker w1 (stage 1) left"));
  EXPECT_THAT(Get(id_).reason(), HasSubstr("SIGTERM; step 10 is saved"));
  EXPECT_EQ(Get(id_).restarts(), 0);
  Disconnect(*w1_);
  Pass(absl::Seconds(1), {w0_});
  EXPECT_EQ(Get(id_).reason(), "restart: needs 2 workers; 1 is connected");
  w1_ = &Connect("w1");
  EXPECT_EQ(Get(id_).attempt(), 2);
  EXPECT_EQ(w1_->first.rounds(0).step(), kTold);
}

TEST_F(LeaveTest, TwoThatLeaveWaitForOneCheckpoint) {
  SayLeaving(*w1_);
  Steps(0, 4);
  SayLeaving(*w0_);
  Steps(4, kTold);
  EXPECT_EQ(KindsTold(*w0_).size(), kTold + 1);
  SaveOfBoth(kTold);
  ReleaseBoth();
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kLeaveGranted));
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
}

TEST_F(LeaveTest, WhoeverGoesBeforeTheJobIsSavedHasLeft) {
  SayLeaving(*w1_);
  Steps(0, 3);
  Disconnect(*w1_);
  SayReleased(*w0_);
  EXPECT_EQ(Get(id_).last_failure().code(), "WORKER_LEFT");
  EXPECT_EQ(Get(id_).restarts(), 0);
}

TEST_F(LeaveTest, WhoeverLeavesMayGoWhenAnotherIsLostMeanwhile) {
  SayLeaving(*w0_);
  Disconnect(*w1_);
  SayReleased(*w0_);
  EXPECT_EQ(Get(id_).last_failure().code(), "WORKER_LOST");
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kLeaveGranted));
}

TEST_F(LeaveTest, ACheckpointThatHasNoRoomDoesNotCostTheJob) {
  SayLeaving(*w1_);
  Steps(0, kTold);
  SayFailed(*w0_, absl::ResourceExhaustedError("writing the checkpoint of step 10: disk full"), /*consequence=*/false);
  ReleaseBoth();
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  EXPECT_EQ(Get(id_).last_failure().code(), "WORKER_LEFT");
  EXPECT_THAT(Get(id_).reason(), HasSubstr("disk full"));
}

TEST_F(LeaveTest, APausedJobIsNotWaitedFor) {
  ASSERT_TRUE(Do([&] { return parts_->scheduler.Pause(id_); }).ok());
  SayLeaving(*w1_);
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kAbort));
}

TEST_F(LeaveTest, AJobThatHasNoStepToComeEndsBeforeAWorkerLeaves) {
  Steps(0, 25);
  SayLeaving(*w1_);
  Steps(25, 30);
  EXPECT_FALSE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  SayFinished(*w1_);
  SayFinished(*w0_);
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  EXPECT_EQ(Get(id_).state(), Job::STATE_SUCCEEDED);
}

TEST_F(LeaveTest, ACheckpointThatIsAskedForComesBeforeTheNextStepThatNobodyKnowsOf) {
  const auto asked = Do([&] { return parts_->scheduler.Checkpoint(id_); });
  ASSERT_TRUE(asked.ok()) << asked.status();
  EXPECT_EQ(asked->step(), kTold);
  EXPECT_EQ(asked->attempt(), 1);
  Steps(0, kTold);
  EXPECT_THAT(KindsTold(*w0_), Contains(v1::ROUND_KIND_CHECKPOINT).Times(1));
  EXPECT_EQ(KindsTold(*w0_).back(), v1::ROUND_KIND_TRAIN) << "it goes on";
  SaveOfBoth(kTold);
  EXPECT_EQ(Get(id_).checkpoint_step(), kTold);
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  EXPECT_THAT(Events(), Contains(Property(&v1::JobEvent::message, "asked for a checkpoint of step 10")));
}

TEST_F(LeaveTest, AJobThatHasNoStepToComeWritesNoCheckpoint) {
  Steps(0, 25);
  const absl::Status late = Do([&] { return parts_->scheduler.Checkpoint(id_); }).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(late)) << late;
  EXPECT_THAT(late.message(), HasSubstr("no training step to come"));
}

TEST_F(LeaveTest, AJobThatDoesNotRunWritesNoCheckpoint) {
  ASSERT_TRUE(Do([&] { return parts_->scheduler.Pause(id_); }).ok());
  EXPECT_EQ(Do([&] { return parts_->scheduler.Checkpoint(id_); }).status().message(),
            "a job that is PAUSED cannot write a checkpoint");
  EXPECT_TRUE(absl::IsNotFound(Do([&] { return parts_->scheduler.Checkpoint("nobody-123456"); }).status()));
}

}  // namespace
}  // namespace gpipe::orchestrator
