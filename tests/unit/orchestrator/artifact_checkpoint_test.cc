#include "absl/strings/str_cat.h"
#include "common/artifacts/parts.h"
#include "common/field_error.h"
#include "common/safetensors/index.h"
#include "orchestrator/artifacts/checkpoint_assembler.h"
#include "orchestrator/artifacts/manifest.h"
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

  static v1::AttemptId Attempt() {
    v1::AttemptId attempt;
    attempt.set_job("job-1");
    attempt.set_attempt(2);
    return attempt;
  }

  // As a worker leaves it.
  v1::ArtifactRef Leave(const std::filesystem::path& folder, const std::string& content) {
    const v1::ArtifactRef ref = RefOf(content);
    std::filesystem::create_directories(folder);
    EXPECT_TRUE(WriteFileAtomically(folder / ref.sha256(), content).ok());
    return ref;
  }
  v1::ArtifactRef LeaveFinal(const std::vector<TestTensor>& tensors) {
    return Leave(PartFolder(store_->folder(), MakePartOf(Attempt())), SafetensorsBytes(tensors));
  }
  bool AnyTemporary() { return !std::filesystem::is_empty(store_->folder() / kTemporaryFolder); }

  CheckpointFiles AssembleTwo() {
    auto files = AssembleCheckpoint(
        *store_, Attempt(),
        {Shard({Floats("0.weight", {2}, {1, 2}), Floats("0.bias", {1}, {3})}, {Floats("0.weight.momentum", {2})}),
         Shard({Floats("2.weight", {3}, {4, 5, 6})}, {Floats("2.weight.momentum", {3})})});
    EXPECT_TRUE(files.ok()) << files.status();
    return files.ok() ? *files : CheckpointFiles();
  }

  static v1::ResumeFiles ResumeOf(const CheckpointFiles& files) {
    v1::ResumeFiles resume;
    *resume.mutable_manifest() = files.manifest;
    resume.mutable_files()->insert(files.files.begin(), files.files.end());
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
  auto model = safetensors::ReadHeader(*store_->Path(files.files.at("model.safetensors")));
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->tensors.size(), 3u);
  const safetensors::TensorInfo& info = model->tensors.at("2.weight");
  std::string bytes = Content(files.files.at("model.safetensors")).substr(info.begin, info.end - info.begin);
  EXPECT_EQ(bytes, Floats("", {3}, {4, 5, 6}).bytes);
  EXPECT_EQ(safetensors::ReadHeader(*store_->Path(files.files.at("optimizer.safetensors")))->tensors.size(), 2u);
}

TEST_F(ArtifactCheckpointTest, TheManifestSaysWhatTheFilesAre) {
  CheckpointFiles files = AssembleTwo();
  auto manifest = ReadManifest(Content(files.manifest));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->job, "job-1");
  EXPECT_EQ(manifest->step, 20);
  ASSERT_EQ(manifest->files.size(), 2u);
  for (const auto& [name, file] : manifest->files) {
    EXPECT_EQ(file.ref.sha256(), files.files.at(name).sha256());
    EXPECT_EQ(file.ref.size(), files.files.at(name).size());
  }
  EXPECT_EQ(manifest->files.at("model.safetensors").tensors, 3);
  EXPECT_EQ(manifest->files.at("optimizer.safetensors").tensors, 2);
  EXPECT_THAT(Content(files.manifest), HasSubstr("\"format_version\": 1"));
}

TEST_F(ArtifactCheckpointTest, LeavesNoFileButTheArtifacts) {
  int before = CountFiles();
  AssembleTwo();
  EXPECT_EQ(CountFiles(), before + 4 + 3);  // The shards and the checkpoint.
}

TEST_F(ArtifactCheckpointTest, AnOptimizerWithoutStateHasAFileWithoutTensors) {
  v1::CheckpointShard shard = Shard({Floats("0.weight", {2})}, {});
  shard.clear_optimizer();
  auto files = AssembleCheckpoint(*store_, Attempt(), {shard});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_TRUE(safetensors::ReadHeader(*store_->Path(files->files.at("optimizer.safetensors")))->tensors.empty());
  EXPECT_TRUE(CheckResumeFiles(*store_, ResumeOf(*files)).ok());
}

TEST_F(ArtifactCheckpointTest, AMissingShardMakesNoCheckpoint) {
  v1::CheckpointShard shard = Shard({Floats("0.weight", {2})}, {});
  *shard.add_model() = RefOf("never uploaded");
  int before = CountFiles();
  EXPECT_THAT(AssembleCheckpoint(*store_, Attempt(), {shard}).status(), HasCode(StatusCode::kNotFound));
  EXPECT_EQ(CountFiles(), before);
}

TEST_F(ArtifactCheckpointTest, TwoShardsWithTheSameNameAreRefused) {
  v1::CheckpointShard a = Shard({Floats("0.weight", {2}, {1, 2})}, {});
  v1::CheckpointShard b = Shard({Floats("0.weight", {2}, {3, 4})}, {});
  absl::Status status = AssembleCheckpoint(*store_, Attempt(), {a, b}).status();
  EXPECT_THAT(status, HasCode(StatusCode::kInvalidArgument));
  EXPECT_THAT(std::string(status.message()), HasSubstr("0.weight"));
}

TEST_F(ArtifactCheckpointTest, AShardThatIsNoSafetensorsFileIsRefused) {
  v1::CheckpointShard shard = Shard({}, {});
  *shard.add_model() = Put("garbage");
  EXPECT_THAT(AssembleCheckpoint(*store_, Attempt(), {shard}).status(), HasCode(StatusCode::kInvalidArgument));
}

TEST_F(ArtifactCheckpointTest, ShardsOfSeveralStepsOrNoneAreRefused) {
  EXPECT_THAT(AssembleCheckpoint(*store_, Attempt(), {Shard({}, {}, 10), Shard({}, {}, 20)}).status(),
              HasCode(StatusCode::kInvalidArgument));
  EXPECT_THAT(AssembleCheckpoint(*store_, Attempt(), {}).status(), HasCode(StatusCode::kInvalidArgument));
}

TEST_F(ArtifactCheckpointTest, JoinsTheFinalModel) {
  const auto files = AssembleModel(
      *store_, Attempt(),
      {Put(SafetensorsBytes({Floats("0.weight", {1})})), Put(SafetensorsBytes({Floats("1.weight", {1})}))});
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 1u);
  EXPECT_EQ(safetensors::ReadHeader(*store_->Path(files->at("model.safetensors")))->tensors.size(), 2u);
}

TEST_F(ArtifactCheckpointTest, PartsThatWereLeftAreGoneOnceTheyAreJoined) {
  const auto files = AssembleModel(
      *store_, Attempt(), {LeaveFinal({Floats("0.weight", {1}, {1})}), LeaveFinal({Floats("1.weight", {1}, {2})})});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(safetensors::ReadHeader(*store_->Path(files->at("model.safetensors")))->tensors.size(), 2u);
  EXPECT_TRUE(AnyTemporary());
  RemoveParts(*store_, Attempt());
  EXPECT_FALSE(AnyTemporary());
  EXPECT_EQ(CountFiles(), 1);
}

TEST_F(ArtifactCheckpointTest, PartsThatAreLargeTogetherAreKeptWithAnIndex) {
  const v1::ArtifactRef first = LeaveFinal({Floats("0.weight", {2}, {1, 2}), Floats("0.bias", {1}, {3})});
  const v1::ArtifactRef second = Put(SafetensorsBytes({Floats("2.weight", {3}, {4, 5, 6})}));
  const v1::ArtifactRef none = Put(SafetensorsBytes({}));
  const auto files = AssembleModel(*store_, Attempt(), {first, none, second}, first.size() + second.size() - 1);
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 3u);
  EXPECT_EQ(files->at("model-00001-of-00002.safetensors").sha256(), first.sha256());
  EXPECT_EQ(files->at("model-00002-of-00002.safetensors").sha256(), second.sha256());
  EXPECT_TRUE(store_->Has(first));
  const v1::ArtifactRef& index = files->at("model.safetensors.index.json");
  EXPECT_THAT(Content(index), HasSubstr("\"total_size\": 24"));
  const auto names = safetensors::ReadIndex(*store_->Path(index), "model.safetensors.index.json");
  ASSERT_TRUE(names.ok()) << names.status();
  const safetensors::WeightMap expected = {{"0.bias", "model-00001-of-00002.safetensors"},
                                           {"0.weight", "model-00001-of-00002.safetensors"},
                                           {"2.weight", "model-00002-of-00002.safetensors"}};
  EXPECT_EQ(*names, expected);
}

TEST_F(ArtifactCheckpointTest, OnePartIsKeptAsTheWholeFile) {
  const v1::ArtifactRef only = LeaveFinal({Floats("0.weight", {2}, {1, 2})});
  const auto files = AssembleModel(*store_, Attempt(), {only}, /*max_shard_bytes=*/1);
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 1u);
  EXPECT_EQ(files->at("model.safetensors").sha256(), only.sha256());
  EXPECT_TRUE(store_->Has(only));
}

TEST_F(ArtifactCheckpointTest, ANameInTwoOfTheKeptPartsIsRefused) {
  for (const float other_value : {1.0f, 3.0f}) {  // The same part twice, or another one.
    const v1::ArtifactRef part = LeaveFinal({Floats("0.weight", {2}, {1, 2})});
    const v1::ArtifactRef other = LeaveFinal({Floats("0.weight", {2}, {other_value, 2})});
    const absl::Status status = AssembleModel(*store_, Attempt(), {part, other}, /*max_shard_bytes=*/1).status();
    EXPECT_THAT(status, HasCode(StatusCode::kInvalidArgument));
    EXPECT_THAT(std::string(status.message()), HasSubstr("0.weight"));
  }
}

TEST_F(ArtifactCheckpointTest, APartThatIsCutOffIsRefused) {
  v1::ArtifactRef part = LeaveFinal({Floats("0.weight", {2}, {1, 2})});
  part.set_size(part.size() + 1);
  EXPECT_THAT(AssembleModel(*store_, Attempt(), {part}).status(), HasCode(StatusCode::kDataLoss));
}

TEST_F(ArtifactCheckpointTest, ACheckpointInSeveralFilesIsResumedFrom) {
  const std::filesystem::path folder = PartFolder(store_->folder(), MakePartOf(Attempt(), 20));
  std::vector<v1::CheckpointShard> shards(2);
  for (int i = 0; i < 2; ++i) {
    const std::string name = absl::StrCat(i, ".weight");
    shards[i].set_step(20);
    *shards[i].add_model() = Leave(folder, SafetensorsBytes({Floats(name, {100})}));
    *shards[i].add_optimizer() = Leave(folder, SafetensorsBytes({Floats(name + "/momentum", {1})}));
  }
  const auto files = AssembleCheckpoint(*store_, Attempt(), shards, /*max_shard_bytes=*/600);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_FALSE(std::filesystem::exists(folder));
  ASSERT_EQ(files->files.size(), 4u) << "two of the model, its index, and one of the optimizer";
  EXPECT_EQ(TensorFilesOf(files->files, kModelStem).size(), 2u);
  EXPECT_EQ(TensorFilesOf(files->files, kOptimizerStem).size(), 1u);
  EXPECT_THAT(Content(files->manifest), HasSubstr("\"format_version\": 2"));
  const auto resumed = CheckResumeFiles(*store_, ResumeOf(*files));
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->files.size(), 4u);

  v1::ResumeFiles torn = ResumeOf(*files);
  torn.mutable_files()->erase("model-00002-of-00002.safetensors");
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.files[model-00002-of-00002.safetensors]");
  torn = ResumeOf(*files);
  (*torn.mutable_files())["model.safetensors"] = Put("more");
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.files[model.safetensors]");
}

TEST_F(ArtifactCheckpointTest, ResumesFromItsFiles) {
  CheckpointFiles files = AssembleTwo();
  auto resumed = CheckResumeFiles(*store_, ResumeOf(files));
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->step, 20);
  EXPECT_EQ(resumed->files.at("model.safetensors").sha256(), files.files.at("model.safetensors").sha256());
}

TEST_F(ArtifactCheckpointTest, ResumeNamesTheFileThatDoesNotFit) {
  v1::ResumeFiles files = ResumeOf(AssembleTwo());
  v1::ResumeFiles torn = files;
  (*torn.mutable_files())["model.safetensors"] = Put(SafetensorsBytes({Floats("0.weight", {2})}));
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.files[model.safetensors]");
  torn = files;
  (*torn.mutable_files())["optimizer.safetensors"] = files.files().at("model.safetensors");
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.files[optimizer.safetensors]");
  torn = files;
  *torn.mutable_manifest() = Put("{}");
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.manifest");
  torn = files;
  torn.mutable_files()->erase("model.safetensors");
  ExpectViolation(CheckResumeFiles(*store_, torn).status(), "resume_files.files[model.safetensors]");
}

TEST_F(ArtifactCheckpointTest, ResumeChecksThatTheFilesAreWhatTheManifestCounts) {
  CheckpointFiles files = AssembleTwo();
  Manifest manifest = *ReadManifest(Content(files.manifest));
  manifest.files["model.safetensors"].tensors = 4;
  files.manifest = Put(WriteManifest(manifest));
  ExpectViolation(CheckResumeFiles(*store_, ResumeOf(files)).status(), "resume_files.files[model.safetensors]");

  manifest.files["model.safetensors"].tensors = 3;
  manifest.files["model.safetensors"].ref = files.files["model.safetensors"] = Put("not safetensors");
  files.manifest = Put(WriteManifest(manifest));
  ExpectViolation(CheckResumeFiles(*store_, ResumeOf(files)).status(), "resume_files.files[model.safetensors]");
}

TEST_F(ArtifactCheckpointTest, ResumeFromFilesThatWereNotUploadedIsNotFound) {
  v1::ResumeFiles files = ResumeOf(AssembleTwo());
  *files.mutable_manifest() = RefOf("elsewhere");
  EXPECT_THAT(CheckResumeFiles(*store_, files).status(), HasCode(StatusCode::kNotFound));
}

TEST(ManifestTest, WhatIsNotAManifestIsRefused) {
  const std::string good =
      WriteManifest({.job = "j",
                     .step = 3,
                     .files = {{"model.safetensors", {RefOf("m"), 1}}, {"optimizer.safetensors", {RefOf("o"), 1}}}});
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
      with("\"format_version\": 1", "\"format_version\": 3"),
      with("\"format_version\": 1", "\"format_version\": \"1\""),
      with("\"step\": 3", "\"step\": -3"),
      with("\"step\": 3", "\"step\": 3.5"),
      with("\"step\": 3", "\"step\": 18446744073709551615"),
      with("\"files\"", "\"filez\""),
      with("\"model.safetensors\"", "\"model\""),
      with("\"model.safetensors\"", "\"model-00001-of-00001.safetensors\""),
      with("\"model.safetensors\"", "\"../model.safetensors\""),
      with("\"size\": 1", "\"size\": null"),
      with(RefOf("m").sha256(), "../" + std::string(61, 'a')),
  };
  for (const std::string& bytes : bad_ones) {
    EXPECT_THAT(ReadManifest(bytes).status(), HasCode(StatusCode::kInvalidArgument)) << bytes;
  }
}

TEST(ManifestTest, SeveralFilesAreFormatVersion2) {
  const std::string bytes = WriteManifest({.job = "j",
                                           .step = 3,
                                           .files = {{"model-00001-of-00002.safetensors", {RefOf("1"), 1}},
                                                     {"model-00002-of-00002.safetensors", {RefOf("2"), 2}},
                                                     {"model.safetensors.index.json", {RefOf("i"), 3}},
                                                     {"optimizer.safetensors", {RefOf("o"), 1}}}});
  EXPECT_THAT(bytes, HasSubstr("\"format_version\": 2"));
  const auto manifest = ReadManifest(bytes);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  ASSERT_EQ(manifest->files.size(), 4u);
  EXPECT_EQ(manifest->files.at("model-00002-of-00002.safetensors").ref.sha256(), RefOf("2").sha256());
  EXPECT_EQ(manifest->files.at("model.safetensors.index.json").tensors, 3);
}

}  // namespace
}  // namespace gpipe::orchestrator
