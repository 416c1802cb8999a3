#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;
using v1::OrchestratorMessage;
using v1::Worker;

TEST_F(SchedulerTest, AJobWaitsForEnoughWorkers) {
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  Connect("w0");
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  FakeWorker& other = Connect("w1");
  const Job job = Get(id_);
  EXPECT_EQ(job.state(), Job::STATE_STARTING);
  EXPECT_EQ(job.attempt(), 1);
  EXPECT_THAT(job.workers(), ElementsAre("w0", "w1"));
  EXPECT_THAT(job.balance(), ElementsAre(2, 1));
  EXPECT_EQ(job.steps_total(), 10);
  auto prepare = other.Take(OrchestratorMessage::kPrepare);
  ASSERT_TRUE(prepare.has_value());
  EXPECT_EQ(prepare->prepare().worker_index(), 1);
  EXPECT_EQ(prepare->prepare().peers(0).name(), "w0");
  const v1::Program& program = prepare->prepare().plan().programs(0);
  EXPECT_EQ(program.rows(0).actions_size(), 0);  // The other's.
  EXPECT_GT(program.rows(1).actions_size(), 0);
}

v1::JobSpec SmallSpec() {
  v1::JobSpec small = ParseSpec(kTrainYaml);
  small.mutable_pipeline()->set_workers(1);
  return small;
}

TEST_F(SchedulerTest, AJobWhoseWorkersAreBusyHoldsBackTheRest) {
  Connect("w0");
  Connect("w1");
  const std::string first = Submit(SmallSpec())->id();
  const std::string large = Submit(ParseSpec(kTrainYaml))->id();
  const std::string second = Submit(SmallSpec())->id();
  EXPECT_EQ(Get(first).state(), Job::STATE_STARTING);
  EXPECT_EQ(Get(large).reason(), "waits for 2 idle workers");
  EXPECT_EQ(Get(second).state(), Job::STATE_QUEUED);
  EXPECT_EQ(Get(second).reason(), absl::StrCat("waits behind ", large));
  EXPECT_TRUE(Do([&] { return parts_->scheduler.Cancel(large); }).ok());
  EXPECT_EQ(Get(second).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, AJobThatNeedsMoreWorkersThanThereAreHoldsBackNobody) {
  const std::string large = Submit(ParseSpec(kTrainYaml))->id();
  const std::string second = Submit(SmallSpec())->id();
  Connect("w0");
  EXPECT_EQ(Get(large).reason(), "needs 2 workers; 1 is connected");
  EXPECT_EQ(Get(second).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, AJobThatWaitsForGpusHoldsBackNoneOnCpus) {
  Connect("g0", "cuda:0");
  Connect("c0");
  const std::string first = Submit(SmallSpec())->id();
  v1::JobSpec cuda = SmallSpec(), cpu = SmallSpec();
  cuda.mutable_pipeline()->set_device(v1::DEVICE_CUDA);
  cpu.mutable_pipeline()->set_device(v1::DEVICE_CPU);
  const std::string second = Submit(cuda)->id();
  const std::string third = Submit(cpu)->id();
  EXPECT_THAT(Get(first).workers(), ElementsAre("g0"));
  EXPECT_EQ(Get(second).reason(), "waits for 1 idle worker");
  EXPECT_THAT(Get(third).workers(), ElementsAre("c0"));
}

TEST_F(SchedulerTest, AllWorkersOfAJobHaveOneKindOfDevice) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  Connect("c0");
  Connect("g0", "cuda:0");
  id_ = Submit(spec)->id();
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  Connect("g1", "cuda:1");
  EXPECT_THAT(Get(id_).workers(), ElementsAre("g0", "g1"));
}

TEST_F(SchedulerTest, FromSubmissionToSuccess) {
  RunJob();
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kGrant));
  for (int64_t step = 0; step < 2; ++step) RoundOfBoth(step, step);
  EXPECT_EQ(Get(id_).steps_done(), 2);
  EXPECT_EQ(Get(id_).rounds_done(), 2);
  auto metrics = Do([&] { return parts_->book.ListMetrics(id_, 0, ""); });
  ASSERT_EQ(metrics->steps_size(), 2);
  EXPECT_EQ(metrics->steps(1).step(), 2);
  EXPECT_EQ(metrics->steps(1).loss(), 2.5);

  SayFinished(*w0_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  SayFinished(*w1_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_SUCCEEDED);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_RELEASING);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kRelease));
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
  std::vector<Job::State> states;
  for (const v1::JobEvent& event : Events()) states.push_back(event.state());
  EXPECT_THAT(states, ElementsAre(Job::STATE_QUEUED, Job::STATE_STARTING, Job::STATE_RUNNING, Job::STATE_SUCCEEDED));
}

TEST_F(SchedulerTest, SuccessIsAnnouncedAfterResultsAreStored) {
  RunJob();
  parts_->merges.held = true;
  SayFinished(*w0_);
  SayFinished(*w1_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_RUNNING);
  EXPECT_FALSE(w0_->Has(OrchestratorMessage::kRelease));
  parts_->merges.RunHeld();
  Settle();
  EXPECT_EQ(Get(id_).state(), Job::STATE_SUCCEEDED);
}

TEST_F(SchedulerTest, AResultThatIsNotThereFailsTheJob) {
  RunJob();
  v1::WorkerMessage message;
  *message.mutable_finished()->mutable_attempt() = w0_->attempt;
  message.mutable_finished()->add_model()->set_sha256(std::string(64, 'a'));
  Say(*w0_, message);
  SayFinished(*w1_);
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_FAILED);
  EXPECT_EQ(StateOf("w1"), Worker::STATE_IDLE);
}

TEST_F(SchedulerTest, NothingIsGrantedBeforeAllArePrepared) {
  StartJob();
  SayPrepared(*w0_);
  EXPECT_FALSE(w0_->Has(OrchestratorMessage::kGrant));
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, LockStepGrantsOneCycleAtATime) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_pipeline()->set_clock_window(1);
  RunJob(spec);
  auto grant = w1_->Take(OrchestratorMessage::kGrant);
  ASSERT_TRUE(grant.has_value());
  EXPECT_EQ(grant->grant().cycle(), 0);
  v1::WorkerMessage message;
  *message.mutable_progress()->mutable_attempt() = w0_->attempt;
  Say(*w0_, message);
  EXPECT_FALSE(w1_->Has(OrchestratorMessage::kGrant));
  Say(*w1_, message);
  EXPECT_EQ(w1_->Take(OrchestratorMessage::kGrant)->grant().cycle(), 1);
}

TEST_F(SchedulerTest, WorkersExchangeKeysOfTheirAttemptOnly) {
  StartJob();
  v1::WorkerMessage get;
  *get.mutable_rendezvous_get()->mutable_attempt() = w1_->attempt;
  get.mutable_rendezvous_get()->set_key("k");
  Say(*w1_, get);
  v1::WorkerMessage put;
  *put.mutable_rendezvous_put()->mutable_attempt() = w0_->attempt;
  put.mutable_rendezvous_put()->mutable_attempt()->set_attempt(7);
  put.mutable_rendezvous_put()->set_key("k");
  put.mutable_rendezvous_put()->set_value("v");
  Say(*w0_, put);
  EXPECT_FALSE(w1_->Has(OrchestratorMessage::kRendezvousValue));
  put.mutable_rendezvous_put()->mutable_attempt()->set_attempt(1);
  Say(*w0_, put);
  auto value = w1_->Take(OrchestratorMessage::kRendezvousValue);
  ASSERT_TRUE(value.has_value());
  EXPECT_EQ(value->rendezvous_value().value(), "v");
}

TEST_F(SchedulerTest, AModelThatNoWorkerDescribesFailsAfterAFewTries) {
  id_ = Submit(ParseSpec(kTrainYaml))->id();  // Without workers it is not looked at yet.
  answer_inspections_ = false;
  FakeWorker& w0 = Connect("w0");
  FakeWorker& w1 = Connect("w1");
  Pass(absl::Seconds(45), {&w0, &w1});
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  Pass(absl::Seconds(25), {&w0, &w1});
  EXPECT_EQ(Get(id_).state(), Job::STATE_FAILED);
  EXPECT_EQ(Get(id_).failure().code(), "STALLED");
  EXPECT_THAT(Get(id_).reason(), HasSubstr("no worker could describe the model within 20s; 3 tries"));
}

TEST_F(SchedulerTest, ADescriptionThatComesLateIsKept) {
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  answer_inspections_ = false;
  FakeWorker& w0 = Connect("w0");
  FakeWorker& w1 = Connect("w1");
  Pass(absl::Seconds(30), {&w0, &w1});  // One is late, so the other one is asked.
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  answer_inspections_ = true;
  Pass(absl::Seconds(2), {&w0, &w1});
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_EQ(inspections_, 2);
  ASSERT_TRUE(Submit(ParseSpec(kTrainYaml)).ok());
  EXPECT_EQ(inspections_, 2) << "it is known";
}

TEST_F(SchedulerTest, AWorkerThatIsLateIsNotAskedTheSameAgain) {
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  answer_inspections_ = false;
  FakeWorker& w0 = Connect("w0");
  FakeWorker& w1 = Connect("w1");
  Pass(absl::Seconds(50), {&w0, &w1});
  for (const FakeWorker* worker : {&w0, &w1}) {
    EXPECT_EQ(std::ranges::count_if(worker->inbox, [](const auto& message) { return message.has_inspect(); }), 1);
  }
  answer_inspections_ = true;
  Pass(absl::Seconds(2), {&w0, &w1});
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, ABusyInspectorIsAskedAgain) {
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  inspect_status_ = absl::UnavailableError("too many inspections are waiting on this worker");
  FakeWorker& w0 = Connect("w0");
  FakeWorker& w1 = Connect("w1");
  Pass(absl::Seconds(100), {&w0, &w1});
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  inspect_status_ = absl::OkStatus();
  Pass(absl::Seconds(2), {&w0, &w1});
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, AJobThatTheClusterIsTooSmallForSaysSo) {
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_EQ(Get(id_).reason(), "needs 2 workers; 0 are connected");
  Connect("w0");
  EXPECT_EQ(Get(id_).reason(), "needs 2 workers; 1 is connected");
  Connect("w1");
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, AModelThatIsTooLargeForTheIdleWorkersWaitsForTheBusyOnes) {
  worker_memory_ = 520;  // Enough for half of the model.
  Connect("w0");
  Connect("w1");
  v1::JobSpec whole = ParseSpec(kTrainYaml);
  whole.mutable_pipeline()->clear_balance();
  v1::JobSpec small = whole;
  small.mutable_pipeline()->add_balance(3);
  ASSERT_EQ(Get(Submit(small)->id()).state(), Job::STATE_STARTING);
  id_ = Submit(whole)->id();
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  EXPECT_THAT(Get(id_).reason(), HasSubstr("waits for workers that are busy: out of memory"));
  Connect("w2");
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

TEST_F(SchedulerTest, AGivenCutThatTheWorkersCannotHoldEndsTheJobBeforeItStarts) {
  worker_memory_ = 220;  // Of which stages may take 198: enough for the second one.
  Connect("w0");
  Connect("w1");
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_EQ(Get(id_).state(), Job::STATE_FAILED);
  EXPECT_EQ(Get(id_).failure().code(), "OUT_OF_MEMORY");
  EXPECT_THAT(Get(id_).failure().message(), HasSubstr("stage 0 (layers 0 to 1) needs 256 bytes"));
}

TEST_F(SchedulerTest, TheCutIsMeasuredWhenThereIsNoBalance) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_pipeline()->clear_balance();
  StartJob(spec);
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_EQ(Get(id_).balance_size(), 2);
  EXPECT_EQ(inspections_, 2);
}

TEST_F(SchedulerTest, AJobFoundBadBeforePlacingFails) {
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  inspect_status_ = absl::InvalidArgumentError("model.sequential[2].linear: does not fit");
  Connect("w0");
  Connect("w1");
  const Job job = Get(id_);
  EXPECT_EQ(job.state(), Job::STATE_FAILED);
  EXPECT_EQ(job.failure().code(), "INVALID_SPEC");
  EXPECT_THAT(job.reason(), HasSubstr("sequential[2]"));
}

TEST_F(SchedulerTest, EvaluationsAreKept) {
  RunJob();
  v1::WorkerMessage message;
  v1::Evaluation& evaluation = *message.mutable_evaluation();
  *evaluation.mutable_attempt() = w1_->attempt;
  evaluation.set_step(2);
  evaluation.set_accuracy(0.5);
  Say(*w1_, message);
  auto metrics = Do([&] { return parts_->book.ListMetrics(id_, 0, ""); });
  ASSERT_EQ(metrics->evaluations_size(), 1);
  EXPECT_EQ(metrics->evaluations(0).accuracy(), 0.5);
}

TEST_F(SchedulerTest, WatchersSeeStatesStepsAndCycles) {
  RunJob();
  auto queue = std::make_shared<WatchQueue>(WatchQueue::Wants{.cycles = true});
  ASSERT_TRUE(Do([&] { return parts_->book.Watch(id_, queue); }).ok());
  v1::WorkerMessage message;
  *message.mutable_progress()->mutable_attempt() = w0_->attempt;
  message.mutable_progress()->add_actions()->set_stage(0);
  Say(*w0_, message);
  message.mutable_progress()->clear_actions();
  Say(*w1_, message);
  RoundOfBoth(0, 0);
  EXPECT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  std::vector<v1::WatchJobResponse::UpdateCase> seen;
  bool ended = false;
  while (!ended) {
    queue->Next([&](const JobUpdate& update, const absl::Status&) {
      ended = update == nullptr;
      if (!ended) seen.push_back(update->update_case());
    });
  }
  using R = v1::WatchJobResponse;
  EXPECT_THAT(seen, ElementsAre(R::kJob, R::kCycle, R::kStep, R::kEvent, R::kJob));
}

TEST_F(SchedulerTest, WatchersHearOfAWorkerThatMovesFiles) {
  RunJob();
  auto queue = std::make_shared<WatchQueue>(WatchQueue::Wants{});
  ASSERT_TRUE(Do([&] { return parts_->book.Watch(id_, queue); }).ok());
  v1::WorkerMessage message;
  v1::Activity& activity = *message.mutable_heartbeat()->mutable_activity();
  *activity.mutable_attempt() = w1_->attempt;
  Say(*w1_, message);  // Of computing there is nothing to say.
  activity.set_phase(v1::PHASE_CHECKPOINT);
  activity.set_bytes_done(100);
  Say(*w1_, message);
  activity.mutable_attempt()->set_attempt(99);  // Of another attempt.
  Say(*w1_, message);
  std::vector<v1::WatchJobResponse> seen;
  for (int i = 0; i < 2; ++i) {
    queue->Next([&](const JobUpdate& update, const absl::Status&) { seen.push_back(*update); });
  }
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_TRUE(seen[0].has_job());
  ASSERT_TRUE(seen[1].has_activity());
  EXPECT_EQ(seen[1].activity().worker(), 1);
  EXPECT_EQ(seen[1].activity().activity().bytes_done(), 100);
  queue->Close(absl::OkStatus());
}

}  // namespace
}  // namespace gpipe::orchestrator
