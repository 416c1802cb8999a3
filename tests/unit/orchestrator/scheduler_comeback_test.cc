// Jobs that run again by themselves after they have lost workers.

#include "orchestrator/scheduling/restart.h"
#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;

v1::Failure FailureAt(std::string_view code, const std::string& worker, int64_t step) {
  v1::Failure failure;
  failure.set_code(std::string(code));
  failure.set_worker(worker);
  failure.set_step(step);
  failure.set_message(absl::StrCat("worker ", worker, " was lost"));
  return failure;
}

v1::Job JobWith(int most, int restarts, const v1::Failure& last = {}) {
  v1::Job job;
  job.mutable_spec()->set_max_restarts(most);
  job.set_restarts(restarts);
  *job.mutable_last_failure() = last;
  return job;
}

bool Restarts(const v1::Job& job, const v1::Failure& failure) {
  return JudgeFailure(job, failure).restarts_in.has_value();
}

TEST(JudgeFailureTest, WhatIsNotOfTheJobsMakingRestartsIt) {
  for (const char* code : {"WORKER_LOST", "WORKER_LEFT", "WORKER_UNREACHABLE", "STALLED"}) {
    EXPECT_TRUE(Restarts(JobWith(3, 0), FailureAt(code, "w1", 4))) << code;
  }
  for (const char* code : {"NOT_FINITE", "INVALID_SPEC", "MISSING_FILE", "DAMAGED_FILE", "OUT_OF_MEMORY", "DISK_FULL",
                           "INTERNAL", "SOMETHING_NEW"}) {
    EXPECT_FALSE(Restarts(JobWith(3, 0), FailureAt(code, "w1", 4))) << code;
  }
}

TEST(JudgeFailureTest, AsOftenAsTheSpecSays) {
  const v1::Failure lost = FailureAt("WORKER_LOST", "w1", 4);
  EXPECT_TRUE(Restarts(v1::Job(), lost)) << "stored before there were restarts";
  EXPECT_EQ(JudgeFailure(JobWith(0, 0), lost).why, "worker w1 was lost");
  EXPECT_EQ(JudgeFailure(JobWith(3, 1), lost).why, "restarts in 2 s (2 of 3): worker w1 was lost");
  EXPECT_TRUE(Restarts(JobWith(3, 2), lost));
  EXPECT_FALSE(Restarts(JobWith(3, 3), lost));
  EXPECT_EQ(JudgeFailure(JobWith(1, 1), lost).why,
            "worker w1 was lost; it has restarted 1 time, as often as max_restarts allows");
}

TEST(JudgeFailureTest, APlannedStopDoesNotCount) {
  const v1::Failure left = FailureAt("WORKER_LEFT", "w1", 4);
  const AfterFailure after = JudgeFailure(JobWith(1, 1), left);
  EXPECT_EQ(after.restarts_in, absl::Seconds(1));
  EXPECT_FALSE(after.counts);
  EXPECT_EQ(after.why, "restarts in 1 s: worker w1 was lost");
  EXPECT_FALSE(Restarts(JobWith(0, 0), left)) << "it may not restart at all";
  EXPECT_TRUE(JudgeFailure(JobWith(3, 1), FailureAt("WORKER_LOST", "w1", 4)).counts);
}

TEST(JudgeFailureTest, WhatWasLeftOpenIsDecidedAnewWhenMemoryIsShort) {
  const v1::Failure short_of_memory = FailureAt("OUT_OF_MEMORY", "w1", 1);
  v1::Job job = JobWith(0, 0);
  job.set_checkpoint(v1::CHECKPOINT_NEVER);
  const AfterFailure after = JudgeFailure(job, short_of_memory);
  EXPECT_EQ(after.restarts_in, absl::ZeroDuration()) << "though it may not restart";
  EXPECT_FALSE(after.counts);
  EXPECT_THAT(after.why, HasSubstr("checkpoint: except_last"));
  EXPECT_FALSE(Restarts(job, FailureAt("INTERNAL", "w1", 1)));
  job.set_checkpoint(v1::CHECKPOINT_EXCEPT_LAST);
  EXPECT_FALSE(Restarts(job, short_of_memory)) << "there is nothing less to keep";
  job.set_checkpoint(v1::CHECKPOINT_NEVER);
  job.mutable_spec()->mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_NEVER);
  EXPECT_FALSE(Restarts(job, short_of_memory)) << "its spec asks for it";
}

TEST(JudgeFailureTest, AStepThatCostsOneWorkerAfterTheOtherEndsTheJob) {
  const v1::Failure now = FailureAt("WORKER_LOST", "w1", 4);
  EXPECT_EQ(JudgeFailure(JobWith(3, 1, FailureAt("WORKER_LOST", "w0", 4)), now).why,
            "step 4 has failed on two workers: worker w1 was lost; in the attempt before: worker w0 was lost");
  EXPECT_TRUE(Restarts(JobWith(3, 1, FailureAt("WORKER_LOST", "w0", 3)), now));
  EXPECT_TRUE(Restarts(JobWith(3, 1, FailureAt("WORKER_LOST", "w1", 4)), now)) << "then it may be the worker";
  EXPECT_TRUE(Restarts(JobWith(3, 1, FailureAt("WORKER_LEFT", "w0", 4)), now)) << "that one was told to go";
  EXPECT_TRUE(Restarts(JobWith(3, 1, FailureAt("WORKER_LOST", "w0", 0)), FailureAt("WORKER_LOST", "w1", 0)))
      << "no step had begun";
}

TEST(RestartDelayTest, DoublesUpToAMinute) {
  std::vector<int64_t> seconds;
  for (int restart = 1; restart <= 8; ++restart) seconds.push_back(absl::ToInt64Seconds(RestartDelay(restart)));
  EXPECT_THAT(seconds, ElementsAre(1, 2, 4, 8, 16, 32, 60, 60));
  EXPECT_EQ(RestartDelay(1000), absl::Seconds(60));
}

// Begins with a job of at most three restarts that runs on w0 and w1.
class ComebackTest : public SchedulerTest {
 protected:
  void SetUp() override {
    SchedulerTest::SetUp();
    RunJob();
  }
  void Steps(int64_t first_round, int64_t first, int64_t end) {
    for (int64_t step = first; step < end; ++step) RoundOfBoth(first_round + step - first, step);
  }
  void AddCheckpoint(int64_t step) {
    const auto put = [&](const char* content) { return *parts_->artifacts->Put(content); };
    const FileMap files = {{"model.safetensors", put("model")}, {"optimizer.safetensors", put("optimizer")}};
    ASSERT_TRUE(Do([&] { return parts_->store->AddCheckpoint(id_, {step, put("manifest"), files}); }).ok());
  }
  void LoseW1() {
    Disconnect(*w1_);
    SayReleased(*w0_);
  }
  // A new process of that name, and the time that a restart waits at most.
  void ReplaceW1(const std::string& name, absl::Duration delay) {
    w1_ = &Connect(name);
    Pass(delay, {w0_, w1_});
  }
};

TEST_F(ComebackTest, AJobGoesOnFromItsCheckpointOnTheWorkersThatAreThere) {
  Steps(0, 0, 3);
  AddCheckpoint(2);
  LoseW1();
  Job job = Get(id_);
  EXPECT_EQ(job.state(), Job::STATE_QUEUED);
  EXPECT_THAT(job.reason(), HasSubstr("restarts in 1 s (1 of 3): worker w1 (stage 1) was lost"));
  EXPECT_THAT(job.reason(), HasSubstr("goes on from the checkpoint of step 2"));
  EXPECT_EQ(job.restarts(), 1);
  EXPECT_EQ(job.last_failure().code(), "WORKER_LOST");
  EXPECT_EQ(job.last_failure().step(), 4);
  EXPECT_FALSE(job.has_failure());

  w1_ = &Connect("w2");
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED) << "not at once";
  Pass(absl::Seconds(1), {w0_, w1_});
  job = Get(id_);
  EXPECT_EQ(job.state(), Job::STATE_STARTING);
  EXPECT_EQ(job.attempt(), 2);
  EXPECT_FALSE(job.has_restart_time());
  EXPECT_THAT(job.workers(), ElementsAre("w0", "w2"));
  EXPECT_EQ(w0_->first.rounds(0).step(), 2);

  SayBothPrepared();
  Steps(0, 2, 4);
  const auto metrics = Do([&] { return parts_->book.ListMetrics(id_, 0, ""); });
  std::vector<int64_t> steps;
  for (const auto& step : metrics->steps()) steps.push_back(step.step());
  EXPECT_THAT(steps, ElementsAre(1, 2, 3, 4)) << "each once";
}

TEST_F(ComebackTest, ItWaitsForWorkersAndSaysSo) {
  LoseW1();
  Pass(absl::Seconds(1), {w0_});
  EXPECT_EQ(Get(id_).reason(), "restart 1 of 3: needs 2 workers; 1 is connected");
  w1_ = &Connect("w1");
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

TEST_F(ComebackTest, ItKeepsItsPlaceBeforeYoungerJobs) {
  FakeWorker& w2 = Connect("w2");
  LoseW1();
  const std::string younger = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_EQ(Get(younger).reason(), absl::StrCat("waits behind ", id_));
  Pass(absl::Seconds(1), {w0_, &w2});
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_EQ(Get(younger).state(), Job::STATE_QUEUED);
}

TEST_F(ComebackTest, ThreeRestartsAreAllThereAre) {
  for (int restart = 1; restart <= 3; ++restart) {
    LoseW1();
    EXPECT_EQ(Get(id_).restarts(), restart);
    ReplaceW1("w1", RestartDelay(restart));
    ASSERT_EQ(Get(id_).attempt(), restart + 1);
    SayBothPrepared();
  }
  LoseW1();
  EXPECT_EQ(Get(id_).state(), Job::STATE_FAILED);
  EXPECT_EQ(Get(id_).failure().code(), "WORKER_LOST");
  EXPECT_THAT(Get(id_).reason(), HasSubstr("it has restarted 3 times, as often as max_restarts allows"));
}

TEST_F(ComebackTest, AStepThatFailsOnTwoWorkersEndsIt) {
  Steps(0, 0, 3);
  LoseW1();
  ReplaceW1("w2", absl::Seconds(1));
  SayBothPrepared();
  Steps(0, 0, 3);
  LoseW1();
  EXPECT_EQ(Get(id_).state(), Job::STATE_FAILED);
  EXPECT_THAT(Get(id_).reason(), HasSubstr("step 4 has failed on two workers: worker w2 (stage 1) was lost"));
  EXPECT_THAT(Get(id_).reason(), HasSubstr("worker w1 (stage 1) was lost"));
}

TEST_F(ComebackTest, AConnectionThatBreaksBetweenWorkersThatLiveRestartsIt) {
  SayFailed(*w0_, absl::UnavailableError("the connection with worker 1 is lost"), /*consequence=*/true);
  Pass(absl::Seconds(8), {w0_, w1_});
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(Get(id_).last_failure().code(), "WORKER_UNREACHABLE");
  EXPECT_EQ(Get(id_).restarts(), 1);
}

TEST_F(ComebackTest, ALossThatIsNotFiniteDoesNotRestartIt) {
  SayFailed(*w1_, absl::OutOfRangeError("the loss of step 1 is not finite"), /*consequence=*/false);
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_FAILED);
  EXPECT_EQ(Get(id_).failure().code(), "NOT_FINITE");
  EXPECT_EQ(Get(id_).failure().step(), 1);
}

TEST_F(ComebackTest, WhatARestartWaitsForOutlivesTheOrchestrator) {
  LoseW1();
  Restart();
  EXPECT_EQ(Get(id_).restarts(), 1);
  ConnectBoth();
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED) << "its time has not come";
  Pass(absl::Seconds(1), {w0_, w1_});
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  SayBothPrepared();
  LoseW1();
  EXPECT_THAT(Get(id_).reason(), HasSubstr("(2 of 3)"));
}

TEST_F(ComebackTest, ItCanBeCancelledWhileItWaits) {
  LoseW1();
  EXPECT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  EXPECT_FALSE(Get(id_).has_restart_time());
  ReplaceW1("w1", absl::Seconds(2));
  EXPECT_EQ(Get(id_).state(), Job::STATE_CANCELLED);
}

TEST_F(ComebackTest, APausedJobComesBackPaused) {
  ASSERT_TRUE(Do([&] { return parts_->scheduler.Pause(id_); }).ok());
  LoseW1();
  ReplaceW1("w1", absl::Seconds(1));
  SayBothPrepared();
  EXPECT_EQ(Get(id_).state(), Job::STATE_PAUSED);
}

}  // namespace
}  // namespace gpipe::orchestrator
