// Jobs on files that the orchestrator does not see: a worker is asked what they are.

#include "common/field_error.h"
#include "common/grpc_status.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;

class SharedFilesTest : public SchedulingTest {
 protected:
  static v1::JobSpec Spec() {
    v1::JobSpec spec = ParseSpec(kTrainYaml);
    v1::Dataset& dataset = *spec.mutable_train()->mutable_dataset();
    dataset.clear_random();
    dataset.add_path("shared:/data/*.safetensors");
    return spec;
  }

  // Sixteen samples in two files.
  static v1::Surveyed Answer(const v1::Survey& survey) {
    v1::Surveyed answer;
    answer.set_id(survey.id());
    v1::SharedContent& found = *answer.add_found();
    found.set_field("train.dataset.path");
    for (const char* name : {"a", "b"}) {
      const std::string path = absl::StrCat("/data/", name, ".safetensors");
      found.add_paths("shared:" + path);
      v1::ArtifactRef& ref = (*found.mutable_files())["shared:" + path];
      ref.set_shared_path(path);
      ref.set_size(int64_t{1} << 40);
      ref.set_modified_nanos(5);
    }
    AddTensor("input", v1::DATA_TYPE_FLOAT32, {16, 4}, found);
    AddTensor("target", v1::DATA_TYPE_INT64, {16}, found);
    return answer;
  }

  static void AddTensor(const std::string& name, v1::DataType dtype, const std::vector<int64_t>& shape,
                        v1::SharedContent& found) {
    v1::ModelTensor& tensor = *found.add_tensors();
    tensor.set_name(name);
    tensor.set_dtype(dtype);
    tensor.mutable_shape()->Assign(shape.begin(), shape.end());
  }

  // Submits, and answers the survey of that worker in this way.
  absl::StatusOr<v1::Job> SubmitAndAnswer(const v1::JobSpec& spec, FakeWorker& worker,
                                          std::function<v1::Surveyed(const v1::Survey&)> answer) {
    auto result = std::make_shared<absl::StatusOr<v1::Job>>(absl::UnknownError("no answer"));
    v1::SubmitJobRequest request;
    *request.mutable_spec() = spec;
    parts_->loop.Post([this, request, result] {
      parts_->admission.Submit(request, request.spec(), "", [result](absl::StatusOr<v1::Job> job) { *result = job; });
    });
    Settle();
    SaySurveyed(worker, answer);
    return *result;
  }

  void SaySurveyed(FakeWorker& worker, const std::function<v1::Surveyed(const v1::Survey&)>& answer) {
    const auto asked = worker.Take(v1::OrchestratorMessage::kSurvey);
    ASSERT_TRUE(asked.has_value());
    EXPECT_THAT(asked->survey().asked(0).paths(), ElementsAre("shared:/data/*.safetensors"));
    v1::WorkerMessage message;
    *message.mutable_surveyed() = answer(asked->survey());
    Say(worker, message);
  }
};

TEST_F(SharedFilesTest, AWorkerSaysWhatTheyAreAndAllAreToldWhichFilesThatWere) {
  FakeWorker& w0 = Connect("w0");
  FakeWorker& w1 = Connect("w1");
  const auto job = SubmitAndAnswer(Spec(), w0, Answer);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(Get(job->id()).state(), Job::STATE_STARTING);
  for (FakeWorker* worker : {&w0, &w1}) {
    const auto prepare = worker->Take(v1::OrchestratorMessage::kPrepare);
    ASSERT_TRUE(prepare.has_value());
    const v1::Assignment& assignment = prepare->prepare();
    EXPECT_THAT(assignment.spec().train().dataset().path(),
                ElementsAre("shared:/data/a.safetensors", "shared:/data/b.safetensors"));
    EXPECT_EQ(assignment.files().at("shared:/data/b.safetensors").modified_nanos(), 5);
    int64_t samples = 0;  // Of the first epoch.
    for (const v1::Round& round : assignment.first().rounds()) samples += round.epoch() == 0 ? round.batch_size() : 0;
    EXPECT_EQ(samples, 16);
  }
  EXPECT_THAT(Get(job->id()).spec().train().dataset().path(), ElementsAre("shared:/data/*.safetensors"))
      << "as it was written";
}

TEST_F(SharedFilesTest, WhatIsWrongWithThemIsRefusedAtSubmission) {
  FakeWorker& worker = Connect("w0");
  const auto torn = SubmitAndAnswer(Spec(), worker, [](const v1::Survey& survey) {
    v1::Surveyed answer;
    answer.set_id(survey.id());
    *answer.mutable_status() = ToProto(FieldError("train.dataset.path", "'shared:/data/a' is torn"));
    return answer;
  });
  EXPECT_TRUE(absl::IsInvalidArgument(torn.status()));
  EXPECT_THAT(std::string(torn.status().message()), HasSubstr("is torn"));
  const auto empty = SubmitAndAnswer(Spec(), worker, [](const v1::Survey& survey) {
    v1::Surveyed answer = Answer(survey);
    answer.mutable_found(0)->mutable_tensors(1)->set_dtype(v1::DATA_TYPE_INT32);
    return answer;
  });
  EXPECT_THAT(std::string(empty.status().message()), HasSubstr("train.dataset.target: cross_entropy needs"));
}

TEST_F(SharedFilesTest, WithoutWorkersTheJobIsAcceptedAndLookedAtWhenOneIsThere) {
  const auto job = Submit(Spec());
  ASSERT_TRUE(job.ok()) << job.status();
  FakeWorker& w0 = Connect("w0");
  Connect("w1");
  SaySurveyed(w0, Answer);
  EXPECT_EQ(Get(job->id()).state(), Job::STATE_STARTING);
}

TEST_F(SharedFilesTest, AWorkerThatIsLostOrSilentDoesNotHoldUpTheJob) {
  for (const bool lost : {true, false}) {
    FakeWorker& worker = Connect(lost ? "lost" : "silent");
    EXPECT_EQ(Submit(Spec()).status().message(), "no answer");
    if (lost) {
      Disconnect(worker);
    } else {
      Pass(absl::Seconds(61), {&worker});
    }
    EXPECT_EQ(Do([&] { return parts_->book.List(0, "", {}); })->items.size(), lost ? 1u : 2u);
  }
}

TEST_F(SharedFilesTest, AnAnswerAboutSomethingElseIsNoAnswer) {
  FakeWorker& worker = Connect("w0");
  const auto job = SubmitAndAnswer(Spec(), worker, [](const v1::Survey& survey) {
    v1::Surveyed answer = Answer(survey);
    answer.mutable_found(0)->set_field("infer.inputs");
    return answer;
  });
  EXPECT_EQ(job.status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace gpipe::orchestrator
