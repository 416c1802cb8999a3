#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;
using v1::OrchestratorMessage;
using v1::Worker;

TEST_F(AttemptFailureTest, ALostWorkerFailsTheJobInEveryPhase) {
  const std::pair<v1::Phase, std::string> kPhases[] = {
      {v1::PHASE_PREPARING, "preparing"},
      {v1::PHASE_JOINING, "joining its peers"},
      {v1::PHASE_FORWARD, "forward of micro-batch 3 in step 17"},
      {v1::PHASE_BACKWARD, "backward of micro-batch 3 in step 17"},
      {v1::PHASE_OPTIMIZER, "optimizer update of step 17"},
      {v1::PHASE_CHECKPOINT, "checkpoint after step 17"},
      {v1::PHASE_EVALUATION, "evaluation after step 17"},
  };
  for (const auto& [phase, doing] : kPhases) {
    if (phase >= v1::PHASE_FORWARD) Run();
    Work(*w1_, phase, 1, 17, 3);
    Pass(absl::Seconds(1), {w0_, w1_});
    Disconnect(*w1_);
    SayReleased(*w0_);
    const v1::Failure failure = FailureOfJob();
    EXPECT_EQ(failure.code(), "WORKER_LOST");
    EXPECT_EQ(failure.worker(), "w1");
    EXPECT_EQ(failure.stage(), 1);
    EXPECT_EQ(failure.doing(), doing);
    EXPECT_THAT(failure.message(), HasSubstr("connection closed"));
    EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
    w1_ = &Connect("w1");
    id_ = Submit(OnceSpec())->id();
    ASSERT_EQ(Get(id_).state(), Job::STATE_STARTING);
  }
}

// Whether the lost sessions or the loop's own timers are seen first.
TEST_F(AttemptFailureTest, WhenTheOrchestratorWasStoppedTheJobGoesOnInAnotherAttempt) {
  for (const bool timers_first : {false, true}) {
    Run();
    const int64_t attempt = Get(id_).attempt();
    clock_.Advance(absl::Seconds(20));
    if (timers_first) Settle();
    SayFailed(*w0_, absl::UnavailableError("peer w1 is gone"), true);
    Disconnect(*w1_);
    EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
    Disconnect(*w0_);
    EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
    EXPECT_FALSE(Get(id_).has_failure());
    w0_ = &Connect("w0");
    w1_ = &Connect("w1");
    EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
    EXPECT_EQ(Get(id_).attempt(), attempt + 1);
    Pass(absl::Seconds(6), {w0_, w1_});
  }
  Run();
  Disconnect(*w1_);
  SayReleased(*w0_);
  EXPECT_EQ(FailureOfJob().code(), "WORKER_LOST");  // Not for ever.
}

TEST_F(AttemptFailureTest, AWorkersOwnErrorIsTheCause) {
  Run();
  Work(*w1_, v1::PHASE_FORWARD, 1, 2, 0);
  SayFailed(*w1_, absl::OutOfRangeError("the loss of step 2 is not finite"), false);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kAbort));
  SayFailed(*w0_, absl::UnavailableError("peer w1 is gone"), true);
  SayReleased(*w0_);
  SayReleased(*w1_);
  const v1::Failure failure = FailureOfJob();
  EXPECT_EQ(failure.code(), "NOT_FINITE");
  EXPECT_EQ(failure.worker(), "w1");
  EXPECT_THAT(failure.message(), HasSubstr("during the forward of micro-batch 0 in step 2"));
  EXPECT_THAT(failure.consequences(), ElementsAre(HasSubstr("peer w1 is gone")));
  EXPECT_EQ(Get(id_).reason(), failure.message());
}

class TrainedTest : public AttemptFailureTest {
 protected:
  void SetUp() override {
    AttemptFailureTest::SetUp();
    Run();
    part_ = *parts_->artifacts->Put(std::string("\x02\0\0\0\0\0\0\0{}", 10));
  }
  void SayTrained(FakeWorker& worker, const v1::ArtifactRef& part) {
    v1::WorkerMessage message;
    *message.mutable_trained()->mutable_attempt() = worker.attempt;
    *message.mutable_trained()->add_model() = part;
    Say(worker, message);
  }
  void FailEvaluation() {
    SayFailed(*w1_, absl::ResourceExhaustedError("out of memory"), false);
    SayReleased(*w0_);
    SayReleased(*w1_);
  }
  v1::ArtifactRef part_;
};

TEST_F(TrainedTest, AnEvaluationThatFailsAtTheEndLeavesTheModel) {
  SayTrained(*w0_, part_);
  EXPECT_EQ(Get(id_).results_size(), 0);
  SayTrained(*w1_, part_);
  FailEvaluation();
  EXPECT_EQ(FailureOfJob().worker(), "w1");
  ASSERT_EQ(Get(id_).results_size(), 1);
  EXPECT_EQ(Get(id_).results(0).path(), "model.safetensors");
}

TEST_F(TrainedTest, TheEndOfTheJobWaitsForItsModel) {
  parts_->merges.held = true;
  SayTrained(*w0_, part_);
  SayTrained(*w1_, part_);
  FailEvaluation();
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  parts_->merges.RunHeld();
  Settle();
  EXPECT_EQ(FailureOfJob().worker(), "w1");
  EXPECT_EQ(Get(id_).results_size(), 1);
}

TEST_F(TrainedTest, AModelIsJoinedOnce) {
  SayTrained(*w0_, part_);
  SayTrained(*w1_, part_);
  for (FakeWorker* worker : {w0_, w1_}) {
    v1::WorkerMessage message;
    *message.mutable_finished()->mutable_attempt() = worker->attempt;
    message.mutable_finished()->add_model()->set_sha256(std::string(64, 'a'));  // Would fail.
    Say(*worker, message);
  }
  EXPECT_EQ(Get(id_).state(), Job::STATE_SUCCEEDED);
  EXPECT_EQ(Get(id_).results_size(), 1);
}

TEST_F(TrainedTest, AModelThatCannotBeStoredFailsTheJob) {
  v1::ArtifactRef missing;
  missing.set_sha256(std::string(64, 'a'));
  parts_->merges.held = true;
  SayTrained(*w0_, missing);
  SayTrained(*w1_, part_);
  SayFinished(*w0_);
  SayFinished(*w1_);
  parts_->merges.RunHeld();
  Settle();
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_FAILED);
}

TEST_F(AttemptFailureTest, WhatAWorkerSaidOfAModelThatOthersCannotRunIsNotRemembered) {
  const int before = inspections_;
  SayFailed(*w0_, absl::InvalidArgumentError("the tensor has not the shape of the plan"), /*consequence=*/false);
  SayReleased(*w0_);
  SayReleased(*w1_);
  ASSERT_EQ(FailureOfJob().code(), "INVALID_SPEC");
  ASSERT_TRUE(Submit(ParseSpec(kTrainYaml)).ok());
  EXPECT_EQ(inspections_, before + 1);
  ASSERT_TRUE(Submit(ParseSpec(kTrainYaml)).ok());
  EXPECT_EQ(inspections_, before + 1);
}

TEST_F(AttemptFailureTest, AConsequenceWaitsForItsCause) {
  Run();
  SayFailed(*w0_, absl::UnavailableError("peer w1 is gone"), true);
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  Disconnect(*w1_);
  SayReleased(*w0_);
  const v1::Failure failure = FailureOfJob();
  EXPECT_EQ(failure.code(), "WORKER_LOST");
  EXPECT_EQ(failure.worker(), "w1");
  EXPECT_THAT(failure.consequences(), ElementsAre(HasSubstr("peer w1 is gone")));
}

TEST_F(AttemptFailureTest, AHungWorkerIsTheCauseOfItsPeersConsequences) {
  Run();
  SayFailed(*w0_, absl::UnavailableError("peer w1 does not answer"), true);
  Pass(absl::Seconds(8), {w0_});
  const v1::Failure failure = FailureOfJob();
  EXPECT_EQ(failure.worker(), "w1");
  EXPECT_THAT(failure.message(), HasSubstr("silent for 5s"));
  EXPECT_THAT(failure.consequences(), Contains(HasSubstr("does not answer")));
}

TEST_F(AttemptFailureTest, AConsequenceWithoutACauseIsTheCauseInTheEnd) {
  Run();
  SayFailed(*w0_, absl::UnavailableError("peer w1 is gone"), true);
  SayFailed(*w1_, absl::UnavailableError("peer w0 is gone"), true);
  Pass(absl::Seconds(5), {w0_, w1_});
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  Pass(absl::Seconds(3), {w0_, w1_});
  const v1::Failure failure = FailureOfJob();
  EXPECT_EQ(failure.worker(), "w0");
  EXPECT_THAT(failure.consequences(), Contains(HasSubstr("peer w0 is gone")));
}

TEST_F(AttemptFailureTest, TheFirstOfTwoCausesWins) {
  Run();
  SayFailed(*w0_, absl::ResourceExhaustedError("out of memory"), false);
  SayFailed(*w1_, absl::InternalError("later"), false);
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(FailureOfJob().code(), "OUT_OF_MEMORY");
  EXPECT_EQ(FailureOfJob().worker(), "w0");
}

TEST_F(AttemptFailureTest, ConsequencesAreNotWaitedForLongerThanASecond) {
  Run();
  SayFailed(*w0_, absl::InternalError("broken"), false);
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  Pass(absl::Seconds(1), {w0_, w1_});
  EXPECT_EQ(FailureOfJob().worker(), "w0");
}

TEST_F(AttemptFailureTest, AWorkerThatDoesNotLetGoIsLostInTheEnd) {
  Run();
  EXPECT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  SayReleased(*w0_);
  Pass(absl::Seconds(8), {w0_, w1_});
  EXPECT_EQ(StateOf("w1"), Worker::STATE_RELEASING);
  Pass(absl::Seconds(4), {w0_, w1_});
  EXPECT_EQ(StateOf("w1"), Worker::STATE_LOST);
  EXPECT_TRUE(w1_->closed.has_value());
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
}

TEST_F(AttemptFailureTest, AWorkerThatLetsGoByItselfFailsTheJob) {
  Run();
  SayReleased(*w1_);
  SayReleased(*w0_);
  EXPECT_EQ(FailureOfJob().worker(), "w1");
  EXPECT_EQ(StateOf("w1"), Worker::STATE_IDLE);
}

TEST_F(AttemptFailureTest, AWorkerThatLeavesAsItPreparesEndsItsJobBeforeItMayGo) {
  SayLeaving(*w1_);
  EXPECT_FALSE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(FailureOfJob().code(), "WORKER_LEFT");
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  EXPECT_EQ(StateOf("w1"), Worker::STATE_LEAVING);
}

TEST_F(AttemptFailureTest, ALeavingWorkerThatLetGoBeforeItsPeersMayGoWithThem) {
  SayLeaving(*w1_);
  SayReleased(*w1_);
  SayReleased(*w0_);
  EXPECT_EQ(FailureOfJob().code(), "WORKER_LEFT");
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
}

TEST_F(AttemptFailureTest, AWorkerThatHasDoneItsPartMayGoOrBeLost) {
  RunUntilOnlyTheOtherIsBehind();
  SayRounds(*w0_, 0, 8, 10);
  SayLeaving(*w1_);
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  Disconnect(*w1_);
  SayFinished(*w0_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_SUCCEEDED);
}

TEST_F(AttemptFailureTest, AWorkerThatHasFinishedStaysUntilTheOthersHaveReceivedWhatItSent) {
  RunUntilOnlyTheOtherIsBehind();
  SayLeaving(*w1_);
  EXPECT_FALSE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  SayRounds(*w0_, 0, 8, 10);
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  Disconnect(*w1_);
  SayFinished(*w0_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_SUCCEEDED);
}

TEST_F(AttemptFailureTest, AFinishedWorkerThatIsLostBeforeTheOthersHaveReceivedWhatItSentFailsTheJob) {
  RunUntilOnlyTheOtherIsBehind();
  Disconnect(*w1_);
  SayReleased(*w0_);
  EXPECT_EQ(FailureOfJob().code(), "WORKER_LOST");
}

TEST_F(AttemptFailureTest, AWorkerThatSaysWhatCannotBeIsLost) {
  Run();
  v1::WorkerMessage message;
  v1::Progress& progress = *message.mutable_progress();
  *progress.mutable_attempt() = w1_->attempt;
  progress.add_rounds()->set_wall_nanos(-1);
  Say(*w1_, message);
  SayReleased(*w0_);
  const v1::Failure failure = FailureOfJob();
  EXPECT_EQ(failure.code(), "WORKER_LOST");
  EXPECT_EQ(failure.worker(), "w1");
  EXPECT_THAT(failure.message(), HasSubstr("progress.rounds.wall_nanos: is negative"));
}

TEST_F(AttemptFailureTest, AWorkerThatSaysTooMuchOfItselfIsLost) {
  Run();
  v1::WorkerMessage message;
  message.mutable_heartbeat()->mutable_use()->mutable_gpu()->add_slowed_by(std::string(1 << 20, 'x'));
  Say(*w1_, message);
  SayReleased(*w0_);
  EXPECT_THAT(FailureOfJob().message(), HasSubstr("heartbeat: is too large"));
}

TEST_F(AttemptFailureTest, AWorkerThatReportsAStepThatIsNotThereFailsTheJob) {
  Run();
  SayRound(*w1_, 1, 0, 4611686018427387905);
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_THAT(FailureOfJob().message(), HasSubstr("there is no step 4611686018427387905 of 10"));
}

TEST_F(AttemptFailureTest, WhatAWorkerSaysIsShownWithoutControlCharacters) {
  Run();
  SayFailed(*w1_, absl::InternalError("\x1b[2Jgone\x07\nfor good"), /*consequence=*/false);
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_THAT(FailureOfJob().message(), HasSubstr("\\x1b[2Jgone\\x07\nfor good"));
}

TEST_F(AttemptFailureTest, WorkersThatAllWaitForEachOtherFailTheJob) {
  Run();
  Work(*w0_, v1::PHASE_FORWARD, 0, 0, 1);
  Work(*w1_, v1::PHASE_FORWARD, 1, 0, 0);
  activity_of_["w0"].set_waits_for(1);
  Pass(absl::Seconds(30), {w0_, w1_});
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);  // w1 computes.
  activity_of_["w1"].set_waits_for(0);
  Pass(absl::Seconds(6), {w0_, w1_});
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);  // A short cut of the network.
  Pass(absl::Seconds(6), {w0_, w1_});               // Looks are late by the steps of this clock.
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(FailureOfJob().code(), "STALLED");
  EXPECT_THAT(FailureOfJob().message(), HasSubstr("w0 waits for w1, w1 waits for w0"));
}

TEST_F(AttemptFailureTest, AWorkerThatDoesNotTakeUpItsAssignmentIsNamed) {
  Work(*w0_, v1::PHASE_PREPARING, 0, -1, -1);
  Pass(absl::Seconds(12), {w0_, w1_});
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(FailureOfJob().worker(), "w1");
  EXPECT_THAT(FailureOfJob().message(), HasSubstr("has not taken up"));
}

TEST_F(AttemptFailureTest, MessagesOfAnOlderAttemptAreIgnored) {
  Run();
  const v1::AttemptId old = w0_->attempt;
  EXPECT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  SayReleased(*w0_);
  SayReleased(*w1_);
  id_ = Submit(OnceSpec())->id();
  ASSERT_EQ(Get(id_).state(), Job::STATE_STARTING);
  v1::WorkerMessage message;
  *message.mutable_failed()->mutable_attempt() = old;
  Say(*w0_, message);
  *message.mutable_released()->mutable_attempt() = old;
  Say(*w0_, message);
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_ASSIGNED);
}

TEST_F(AttemptFailureTest, WorkersThatNeverPrepareFailTheJob) {
  SayPrepared(*w0_);
  Pass(Attempt::kPrepareTimeout + absl::Seconds(2), {w0_, w1_});
  EXPECT_EQ(FailureOfJob().code(), "STALLED");
  EXPECT_THAT(FailureOfJob().message(), HasSubstr("w1"));
}

TEST_F(AttemptFailureTest, NonsenseFromAWorkerChangesNothing) {
  Run();
  v1::WorkerMessage message;
  v1::Progress& progress = *message.mutable_progress();
  *progress.mutable_attempt() = w0_->attempt;
  progress.set_round(1 << 30);
  progress.set_cycle(-5);
  progress.add_rounds()->add_stages()->set_stage(99);
  progress.add_actions()->set_round(-7);
  Say(*w0_, message);
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  EXPECT_EQ(Get(id_).rounds_done(), 0);
}

}  // namespace
}  // namespace gpipe::orchestrator
