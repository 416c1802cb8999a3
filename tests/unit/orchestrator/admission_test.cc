#include "orchestrator/scheduling/admission.h"

#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::HasSubstr;
using v1::Job;

using AdmissionTest = SchedulingTest;

TEST_F(AdmissionTest, WithoutWorkersAJobIsAcceptedAndCheckedLater) {
  auto job = Submit(ParseSpec(kTrainYaml));
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), Job::STATE_QUEUED);
  EXPECT_THAT(job->id(), testing::StartsWith("t-"));
  EXPECT_EQ(job->id().size(), 8u);
  EXPECT_TRUE(job->has_create_time());
}

TEST_F(AdmissionTest, WithAWorkerABadModelIsRefused) {
  Connect("w0");
  inspect_status_ = absl::InvalidArgumentError("model.sequential[2].linear: does not fit");
  auto job = Submit(ParseSpec(kTrainYaml));
  EXPECT_TRUE(absl::IsInvalidArgument(job.status()));
  EXPECT_TRUE(Do([&] { return parts_->book.List(0, "", {}); })->items.empty());
}

TEST_F(AdmissionTest, AWorkerThatDoesNotAnswerDoesNotHoldUpTheJob) {
  FakeWorker& worker = Connect("w0");
  answer_inspections_ = false;
  EXPECT_EQ(Submit(ParseSpec(kTrainYaml)).status().message(), "no answer");
  Pass(absl::Seconds(21), {&worker});
  EXPECT_EQ(Do([&] { return parts_->book.List(0, "", {}); })->items.size(), 1u);
}

TEST_F(AdmissionTest, ALostWorkerDoesNotHoldUpTheJob) {
  FakeWorker& worker = Connect("w0");
  answer_inspections_ = false;
  Submit(ParseSpec(kTrainYaml)).IgnoreError();
  Disconnect(worker);
  EXPECT_EQ(Do([&] { return parts_->book.List(0, "", {}); })->items.size(), 1u);
}

TEST_F(AdmissionTest, TargetsAreCheckedAgainstTheClasses) {
  Connect("w0");
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_train()->mutable_dataset()->mutable_random()->set_classes(99);
  auto job = Submit(spec);
  EXPECT_TRUE(absl::IsInvalidArgument(job.status()));
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("train.dataset"));
}

TEST_F(AdmissionTest, MissingFilesAreNamedByField) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_model()->set_weights("w.safetensors");
  auto job = Submit(spec);
  EXPECT_TRUE(absl::IsInvalidArgument(job.status()));
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("model.weights"));
}

TEST_F(AdmissionTest, TheSameModelIsInspectedOnce) {
  Connect("w0");
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Submit(ParseSpec(kTrainYaml)).ok());
  EXPECT_EQ(inspections_, 1);
}

TEST_F(AdmissionTest, AWorkerThatLooksAtAModelIsNotAskedWhileAnotherIsFree) {
  answer_inspections_ = false;
  const std::vector<FakeWorker*> workers = {&Connect("w0"), &Connect("w1")};
  v1::JobSpec other = ParseSpec(kTrainYaml);
  other.mutable_train()->add_freeze("0.");
  Submit(ParseSpec(kTrainYaml)).IgnoreError();
  Submit(other).IgnoreError();
  for (const FakeWorker* worker : workers) {
    EXPECT_EQ(std::ranges::count_if(worker->inbox, [](const auto& message) { return message.has_inspect(); }), 1);
  }
}

TEST_F(AdmissionTest, ARepeatedRequestGetsTheSameJob) {
  auto first = Submit(ParseSpec(kTrainYaml), "r");
  EXPECT_EQ(Submit(ParseSpec(kTrainYaml), "r")->id(), first->id());
  v1::JobSpec other = ParseSpec(kTrainYaml);
  other.set_name("other");
  EXPECT_TRUE(absl::IsAlreadyExists(Submit(other, "r").status()));
  Restart();
  EXPECT_EQ(Submit(ParseSpec(kTrainYaml), "r")->id(), first->id());
}

TEST_F(AdmissionTest, TheSameRequestTwiceAtOnceMakesOneJob) {
  parts_->checks.held = true;
  Submit(ParseSpec(kTrainYaml), "r").IgnoreError();
  Submit(ParseSpec(kTrainYaml), "r").IgnoreError();
  parts_->checks.RunHeld();
  Settle();
  EXPECT_EQ(Do([&] { return parts_->book.List(0, "", {}); })->items.size(), 1u);
}

TEST_F(AdmissionTest, AJobThatCouldNotBeStoredIsNotAcknowledged) {
  parts_->commit_error = absl::ResourceExhaustedError("disk full");
  EXPECT_TRUE(absl::IsResourceExhausted(Submit(ParseSpec(kTrainYaml)).status()));
}

TEST_F(AdmissionTest, TooManyChecksAreRefused) {
  parts_->checks.full = true;
  EXPECT_TRUE(absl::IsResourceExhausted(Submit(ParseSpec(kTrainYaml)).status()));
}

TEST_F(AdmissionTest, AcknowledgedJobsAreThereAfterARestart) {
  std::vector<std::string> ids;
  for (int i = 0; i < 50; ++i) ids.push_back(Submit(ParseSpec(kTrainYaml))->id());
  Restart();
  for (const std::string& id : ids) EXPECT_EQ(Get(id).state(), Job::STATE_QUEUED);
}

TEST_F(AdmissionTest, ResumingNeedsACheckpointWithStepsLeft) {
  const std::string id = Submit(ParseSpec(kTrainYaml))->id();
  v1::SubmitJobRequest request;
  *request.mutable_spec() = ParseSpec(kTrainYaml);
  request.set_resume_job("nobody");
  EXPECT_TRUE(absl::IsNotFound(Submit(request).status()));
  request.set_resume_job(id);
  EXPECT_TRUE(absl::IsFailedPrecondition(Submit(request).status()));
  auto put = [&](const char* text) { return *parts_->artifacts->Put(text); };
  ASSERT_TRUE(
      parts_->store
          ->AddCheckpoint(id, {10, put("a"), {{"model.safetensors", put("b")}, {"optimizer.safetensors", put("c")}}})
          .ok());
  EXPECT_THAT(std::string(Submit(request).status().message()), HasSubstr("train.steps"));
  request.mutable_spec()->mutable_train()->set_steps(11);
  EXPECT_TRUE(Submit(request).ok());
}

TEST_F(AdmissionTest, PlanningNeedsAWorkerAndStoresNothing) {
  auto plan = Plan(ParseSpec(kTrainYaml));
  EXPECT_TRUE(absl::IsFailedPrecondition(plan.status()));
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("gpipe-worker"));
  Connect("w0");
  plan = Plan(ParseSpec(kTrainYaml));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->plan().stages_size(), 2);
  EXPECT_DOUBLE_EQ(plan->bubble_share(), 1.0 / 5);
  EXPECT_THAT(plan->grid(), HasSubstr("F0"));
  EXPECT_TRUE(Do([&] { return parts_->book.List(0, "", {}); })->items.empty());
}

TEST_F(AdmissionTest, PlanningForSoManyWorkersMeasuresTheLayers) {
  Connect("w0");
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_pipeline()->clear_balance();
  auto plan = Plan(spec, 2);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->plan().stages_size(), 2);
  EXPECT_GT(plan->forecast().step_seconds(), 0);
}

TEST_F(AdmissionTest, AShutdownAnswersWhatIsUnderWay) {
  parts_->checks.held = true;
  auto answer = std::make_shared<absl::Status>();
  v1::SubmitJobRequest request;
  parts_->loop.Post([&] {
    parts_->admission.Submit(request, ParseSpec(kTrainYaml), "",
                             [&](absl::StatusOr<Job> job) { *answer = job.status(); });
  });
  Settle();
  Do([&] { return parts_->admission.Shutdown(absl::UnavailableError("bye")), 0; });
  EXPECT_TRUE(absl::IsUnavailable(*answer));
  EXPECT_TRUE(absl::IsUnavailable(Submit(ParseSpec(kTrainYaml)).status()));
  parts_->checks.RunHeld();
  Settle();
}

}  // namespace
}  // namespace gpipe::orchestrator
