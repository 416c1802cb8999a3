#include "common/timestamp.h"
#include "orchestrator/scheduling/restart.h"
#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;
using v1::OrchestratorMessage;

class RestartTest : public AttemptFailureTest {
 protected:
  v1::ArtifactRef Put(const std::string& content) { return *parts_->artifacts->Put(content); }
  void AddCheckpoint(int64_t step) {
    const FileMap files = {{"model.safetensors", Put("model")}, {"optimizer.safetensors", Put("optimizer")}};
    ASSERT_TRUE(parts_->store->AddCheckpoint(id_, {step, Put("manifest"), files}).ok());
  }
};

TEST_F(RestartTest, QueuedJobsStayInOrder) {
  const std::string second = Submit(ParseSpec(kTrainYaml))->id();
  Restart();
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  Connect("w0");
  Connect("w1");
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_EQ(Get(second).state(), Job::STATE_QUEUED);
}

TEST_F(RestartTest, ARunningJobStartsAgainFromItsBeginning) {
  Run();
  Restart();
  const auto events = Do([&] { return parts_->book.ListEvents(id_, 0, ""); })->items;
  EXPECT_TRUE(std::ranges::any_of(events, [](const v1::JobEvent& event) {
    return event.message() == "orchestrator restarted; goes on from the beginning";
  }));
  Connect("w0");
  Connect("w1");
  EXPECT_EQ(Get(id_).attempt(), 2);
  EXPECT_EQ(workers_[0]->first.rounds(0).step(), 0);
}

TEST_F(RestartTest, ARunningJobGoesOnFromItsCheckpointAndNoStepAppearsTwice) {
  Run();
  for (int64_t step = 0; step < 3; ++step) {
    SayRound(*w0_, 0, step, step);
    SayRound(*w1_, 1, step, step);
  }
  Get(id_);  // Stores the steps.
  AddCheckpoint(2);
  Restart();
  w0_ = &Connect("w0");
  w1_ = &Connect("w1");
  EXPECT_EQ(w0_->first.rounds(0).step(), 2);
  auto prepare = w0_->Take(OrchestratorMessage::kPrepare);
  ASSERT_TRUE(prepare.has_value());
  EXPECT_EQ(prepare->prepare().resume_optimizer_size(), 1);
  EXPECT_EQ(Get(id_).steps_done(), 2);
  Run();
  SayRound(*w0_, 0, 0, 2);
  SayRound(*w1_, 1, 0, 2);
  auto metrics = Do([&] { return parts_->book.ListMetrics(id_, 0, ""); });
  std::vector<int64_t> steps;
  for (const auto& step : metrics->steps()) steps.push_back(step.step());
  EXPECT_THAT(steps, ElementsAre(1, 2, 3));
}

TEST_F(RestartTest, AShutdownLeavesTheJobToTheNextStart) {
  Run();
  Do([&] { return parts_->scheduler.Shutdown("shutting down"), 0; });
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kAbort));
  Disconnect(*w0_);
  Disconnect(*w1_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  Restart();
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
}

TEST_F(RestartTest, AClientsJobThatRanHasFailedAndOneThatWaitsIsKept) {
  w1_ = &Connect("w2");
  w0_ = &Connect("w3");
  const std::string running = Submit(ParseSpec(kClientYaml))->id(), queued = Submit(ParseSpec(kClientYaml))->id();
  ASSERT_EQ(Get(running).state(), Job::STATE_STARTING);
  Restart();
  EXPECT_EQ(Get(running).state(), Job::STATE_FAILED);
  EXPECT_THAT(Get(running).reason(), HasSubstr("its workers were lost: orchestrator restarted"));
  EXPECT_EQ(Get(queued).state(), Job::STATE_QUEUED);
}

// As when its clock was ahead.
TEST_F(RestartTest, ARestartIsNeverWaitedForLongerThanTheLongest) {
  Run();
  const absl::Status queued = Do([&] {
    LiveJob* job = parts_->book.Find(id_);
    *job->job().mutable_restart_time() = ToTimestamp(clock_.Now() + absl::Hours(9));
    return parts_->book.Requeue(*job, "lost");
  });
  ASSERT_TRUE(queued.ok()) << queued;
  Restart();
  EXPECT_LE(FromTimestamp(Get(id_).restart_time()), clock_.Now() + kLongestRestartDelay);
}

TEST_F(RestartTest, ACheckpointIsAssembledAndNoted) {
  Run();
  SaveOfBoth(4);
  EXPECT_EQ(Get(id_).checkpoint_step(), 4);
  EXPECT_EQ(Get(id_).results_size(), 3);
}

// Else a job that saves faster than its parts are joined fills the disk with them, and fails in the end.
TEST_F(RestartTest, AJobWaitsWhileManyOfItsCheckpointsAreNotJoined) {
  Run();
  parts_->merges.held = true;
  for (int64_t step = 1; step <= Scheduler::kMaxJoining; ++step) SaveOfBoth(step);
  w0_->inbox.clear();
  SayRounds(*w0_, 0, 0, 5);
  SayRounds(*w1_, 1, 0, 5);
  EXPECT_FALSE(w0_->Has(OrchestratorMessage::kGrant));
  parts_->merges.RunHeld();
  Settle();
  EXPECT_EQ(Get(id_).checkpoint_step(), Scheduler::kMaxJoining);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kGrant));
}

TEST_F(RestartTest, ACheckpointThatCannotBeJoinedFailsTheJob) {
  Run();
  parts_->merges.full = true;
  for (FakeWorker* worker : {w0_, w1_}) {
    v1::WorkerMessage message;
    *message.mutable_checkpoint_shard()->mutable_attempt() = worker->attempt;
    Say(*worker, message);
  }
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_THAT(FailureOfJob().message(), HasSubstr("wait to be joined"));
}

}  // namespace
}  // namespace gpipe::orchestrator
