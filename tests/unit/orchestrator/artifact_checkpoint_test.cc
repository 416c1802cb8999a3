#include "common/field_error.h"
#include "orchestrator/artifacts/checkpoint_assembler.h"
#include "tests/unit/orchestrator/artifact_testing.h"

namespace gpipe::orchestrator {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

class ArtifactCheckpointTest : public ArtifactTest {
 protected:
  v1::CheckpointShard Shard(const std::vector<TestTensor>& model, const std::vector<TestTensor>& optimizer,
                            int64_t step = 20) {
    v1::CheckpointShard shard;
    shard.set_step(step);
    *shard.add_model() = Put(SafetensorsBytes(model));
    *shard.add_optimizer() = Put(SafetensorsBytes(optimizer));
    return shard;
  }

  CheckpointFiles AssembleTwo() {
    auto files = AssembleCheckpoint(
        *store_, "job-1",
        {Shard({Floats("0.weight", {2}, {1, 2}), Floats("0.bias", {1}, {3})}, {Floats("0.weight.momentum", {2})}),
         Shard({Floats("2.weight", {3}, {4, 5, 6})}, {Floats("2.weight.momentum", {3})})});
    EXPECT_TRUE(files.ok()) << files.status();
    return files.ok() ? *files : CheckpointFiles();
  }

  static v1::ResumeFiles ResumeOf(const CheckpointFiles& files) {
    v1::ResumeFiles resume;
    *resume.mutable_manifest() = files.manifest;
    (*resume.mutable_files())["model.safetensors"] = files.model;
    (*resume.mutable_files())["optimizer.safetensors"] = files.optimizer;
    return resume;
  }

  void ExpectViolation(const absl::Status& status, const std::string& field) {
    EXPECT_THAT(status, HasCode(StatusCode::kInvalidArgument)) << status;
    std::vector<FieldViolation> violations = FieldViolations(status);
    ASSERT_EQ(violations.size(), 1u) << status;
    EXPECT_EQ(violations[0].field, field) << violations[0].description;
  }
};

TEST_F(ArtifactCheckpointTest, HoldsEveryWorkersParametersUnderTheirNames) {
  CheckpointFiles files = AssembleTwo();
  EXPECT_EQ(files.step, 20);
  auto model = safetensors::ReadHeader(*store_->Path(files.model));
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->tensors.size(), 3u);
  const safetensors::TensorInfo& info = model->tensors.at("2.weight");
  std::string bytes = Content(files.model).substr(info.begin, info.end - info.begin);
  EXPECT_EQ(bytes, Floats("", {3}, {4, 5, 6}).bytes);
  EXPECT_EQ(safetensors::ReadHeader(*store_->Path(files.optimizer))->tensors.size(), 2u);
}

TEST_F(ArtifactCheckpointTest, TheManifestSaysWhatTheFilesAre) {
  CheckpointFiles files = AssembleTwo();
  auto manifest = ReadManifest(Content(files.manifest));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->job, "job-1");
  EXPECT_EQ(manifest->step, 20);
  EXPECT_EQ(manifest->model.sha256(), files.model.sha256());
  EXPECT_EQ(manifest->model.size(), files.model.size());
  EXPECT_EQ(manifest->optimizer.sha256(), files.optimizer.sha256());
  EXPECT_EQ(manifest->model_tensors, 3);
  EXPECT_EQ(manifest->optimizer_tensors, 2);
}

TEST_F(ArtifactCheckpointTest, LeavesNoFileButTheArtifacts) {
  int before = CountFiles();
  AssembleTwo();
  EXPECT_EQ(CountFiles(), before + 4 + 3);  // The shards and the checkpoint.
}

TEST_F(ArtifactCheckpointTest, AnOptimizerWithoutStateHasAFileWithoutTensors) {
  v1::CheckpointShard shard = Shard({Floats("0.weight", {2})}, {});
  shard.clear_optimizer();
  auto files = AssembleCheckpoint(*store_, "job-1", {shard});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_TRUE(safetensors::ReadHeader(*store_->Path(files->optimizer))->tensors.empty());
  EXPECT_TRUE(CheckResumeFiles(*store_, ResumeOf(*files)).ok());
}

TEST_F(ArtifactCheckpointTest, AMissingShardMakesNoCheckpoint) {
  v1::CheckpointShard shard = Shard({Floats("0.weight", {2})}, {});
  *shard.add_model() = RefOf("never uploaded");
  int before = CountFiles();
  EXPECT_THAT(AssembleCheckpoint(*store_, "job-1", {shard}).status(), HasCode(StatusCode::kNotFound));
  EXPECT_EQ(CountFiles(), before);
}

TEST_F(ArtifactCheckpointTest, TwoShardsWithTheSameNameAreRefused) {
  v1::CheckpointShard a = Shard({Floats("0.weight", {2}, {1, 2})}, {});
  v1::CheckpointShard b = Shard({Floats("0.weight", {2}, {3, 4})}, {});
  absl::Status status = AssembleCheckpoint(*store_, "job-1", {a, b}).status();
  EXPECT_THAT(status, HasCode(StatusCode::kInvalidArgument));
  EXPECT_THAT(std::string(status.message()), HasSubstr("0.weight"));
}

TEST_F(ArtifactCheckpointTest, AShardThatIsNoSafetensorsFileIsRefused) {
  v1::CheckpointShard shard = Shard({}, {});
  *shard.add_model() = Put("garbage");
  EXPECT_THAT(AssembleCheckpoint(*store_, "job-1", {shard}).status(), HasCode(StatusCode::kInvalidArgument));
}

TEST_F(ArtifactCheckpointTest, ShardsOfSeveralStepsOrNoneAreRefused) {
  EXPECT_THAT(AssembleCheckpoint(*store_, "job-1", {Shard({}, {}, 10), Shard({}, {}, 20)}).status(),
              HasCode(StatusCode::kInvalidArgument));
  EXPECT_THAT(AssembleCheckpoint(*store_, "job-1", {}).status(), HasCode(StatusCode::kInvalidArgument));
}

TEST_F(ArtifactCheckpointTest, MergesTheFinalModel) {
  auto ref = MergeModel(
      *store_, {Put(SafetensorsBytes({Floats("0.weight", {1})})), Put(SafetensorsBytes({Floats("1.weight", {1})}))});
  ASSERT_TRUE(ref.ok()) << ref.status();
  EXPECT_EQ(safetensors::ReadHeader(*store_->Path(*ref))->tensors.size(), 2u);
}

TEST_F(ArtifactCheckpointTest, ResumesFromItsFiles) {
  CheckpointFiles files = AssembleTwo();
  auto resumed = CheckResumeFiles(*store_, ResumeOf(files));
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->step, 20);
  EXPECT_EQ(resumed->model.sha256(), files.model.sha256());
}

TEST_F(ArtifactCheckpointTest, ResumeNamesTheFileThatDoesNotFit) {
  v1::ResumeFiles files = ResumeOf(AssembleTwo());
  v1::ResumeFiles torn = files;
  (*torn.mutable_files())["model.safetensors"] = Put(SafetensorsBytes({Floats("0.weight", {2})}));
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.model");
  torn = files;
  (*torn.mutable_files())["optimizer.safetensors"] = files.files().at("model.safetensors");
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.optimizer");
  torn = files;
  *torn.mutable_manifest() = Put("{}");
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.manifest");
  torn = files;
  torn.mutable_files()->erase("model.safetensors");
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.model");
}

TEST_F(ArtifactCheckpointTest, ResumeChecksThatTheFilesAreWhatTheManifestCounts) {
  CheckpointFiles files = AssembleTwo();
  Manifest manifest = *ReadManifest(Content(files.manifest));
  manifest.model_tensors = 4;
  files.manifest = Put(WriteManifest(manifest));
  ExpectViolation(CheckResumeFiles(*store_, ResumeOf(files)).status(), "resume_files.model");

  manifest.model_tensors = 3;
  manifest.model = files.model = Put("not safetensors");
  files.manifest = Put(WriteManifest(manifest));
  ExpectViolation(CheckResumeFiles(*store_, ResumeOf(files)).status(), "resume_files.model");
}

TEST_F(ArtifactCheckpointTest, ResumeFromFilesThatWereNotUploadedIsNotFound) {
  v1::ResumeFiles files = ResumeOf(AssembleTwo());
  *files.mutable_manifest() = RefOf("elsewhere");
  EXPECT_THAT(CheckResumeFiles(*store_, files).status(), HasCode(StatusCode::kNotFound));
}

TEST(ManifestTest, WhatIsNotAManifestIsRefused) {
  const std::string good = WriteManifest({.job = "j",
                                          .step = 3,
                                          .model = RefOf("m"),
                                          .optimizer = RefOf("o"),
                                          .model_tensors = 1,
                                          .optimizer_tensors = 1});
  ASSERT_TRUE(ReadManifest(good).ok());
  auto with = [&good](const std::string& from, const std::string& to) {
    std::string bad = good;
    size_t at = bad.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return bad.replace(at, from.size(), to);
  };
  const std::string bad_ones[] = {
      "",
      "[]",
      "null",
      "{\"format_version\": 1",
      good.substr(0, good.size() / 2),
      with("\"format_version\": 1", "\"format_version\": 2"),
      with("\"format_version\": 1", "\"format_version\": \"1\""),
      with("\"step\": 3", "\"step\": -3"),
      with("\"step\": 3", "\"step\": 3.5"),
      with("\"step\": 3", "\"step\": 18446744073709551615"),
      with("\"files\"", "\"filez\""),
      with("\"model.safetensors\"", "\"model\""),
      with("\"size\": 1", "\"size\": null"),
      with(RefOf("m").sha256(), "../" + std::string(61, 'a')),
  };
  for (const std::string& bytes : bad_ones) {
    EXPECT_THAT(ReadManifest(bytes).status(), HasCode(StatusCode::kInvalidArgument)) << bytes;
  }
}

}  // namespace
}  // namespace gpipe::orchestrator
