#include "common/field_error.h"
#include "common/plan/shape.h"
#include "google/protobuf/text_format.h"
#include "orchestrator/artifacts/input_check.h"
#include "tests/unit/orchestrator/artifact_testing.h"

namespace gpipe::orchestrator {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kTrain[] = R"(
  train {
    dataset { path: "train.safetensors" inputs: "x" target: "y" }
    batch_size: 4
    loss { cross_entropy { ignore_index: -100 } }
  })";

class ArtifactInputTest : public ArtifactTest {
 protected:
  ArtifactInputTest() { Read(kTrain); }

  void Read(const std::string& text) { ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec_)); }

  void AddFile(const std::string& path, const std::vector<TestTensor>& tensors) {
    files_[path] = Put(SafetensorsBytes(tensors));
  }

  v1::Dataset& UseEvaluation() {
    v1::Dataset& dataset = *spec_.mutable_train()->mutable_evaluate()->mutable_dataset();
    dataset = spec_.train().dataset();
    dataset.set_path(0, "test.safetensors");
    return dataset;
  }

  // A first input `a` without samples.
  void UseUnbatched() {
    v1::Dataset& dataset = *spec_.mutable_train()->mutable_dataset();
    dataset.set_inputs(0, "a");
    dataset.add_inputs("x");
    dataset.add_unbatched("a");
    spec_.mutable_model()->mutable_exported()->set_path("m.pt2");
  }

  InputFacts Facts() {
    auto facts = CheckInputs(spec_, files_, *store_);
    EXPECT_TRUE(facts.ok()) << facts.status();
    return facts.ok() ? *facts : InputFacts();
  }

  void ExpectRefused(const std::string& field, const std::string& description) {
    ExpectViolation(CheckInputs(spec_, files_, *store_).status(), field, description);
  }

  void ExpectViolation(const absl::Status& status, const std::string& field, const std::string& description) {
    EXPECT_THAT(status, HasCode(StatusCode::kInvalidArgument)) << status;
    std::vector<FieldViolation> violations = FieldViolations(status);
    ASSERT_EQ(violations.size(), 1u) << status;
    EXPECT_EQ(violations[0].field, field);
    EXPECT_THAT(violations[0].description, HasSubstr(description));
  }

  v1::JobSpec spec_;
  FileMap files_;
};

TEST_F(ArtifactInputTest, FactsOfATrainingFile) {
  AddFile("train.safetensors", {Floats("x", {10, 1, 8, 8}), Ints("y", {10})});
  AddFile("test.safetensors", {Floats("x", {3, 1, 8, 8}), Ints("y", {3})});
  UseEvaluation();
  InputFacts facts = Facts();
  EXPECT_EQ(facts.samples, 10);
  EXPECT_THAT(SampleShape(facts.inputs.at(0).shape()), ElementsAre(1, 8, 8));
  EXPECT_EQ(facts.inputs.at(0).dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_THAT(facts.target_shape, IsEmpty());
  EXPECT_EQ(facts.target_dtype, v1::DATA_TYPE_INT64);
  EXPECT_EQ(facts.evaluation_samples, 3);
}

TEST_F(ArtifactInputTest, FactsOfTokensWithATargetPerPosition) {
  AddFile("train.safetensors", {Ints("x", {10, 16}), Ints("y", {10, 16})});
  InputFacts facts = Facts();
  EXPECT_EQ(facts.inputs.at(0).dtype(), v1::DATA_TYPE_INT64);
  EXPECT_THAT(facts.target_shape, ElementsAre(16));
  EXPECT_EQ(facts.evaluation_samples, 0);
}

TEST_F(ArtifactInputTest, FactsOfMadeUpData) {
  Read(R"(train { dataset { random { samples: 7 input_shape: [ 2, 3 ] classes: 5 } }
                  batch_size: 4 loss { cross_entropy {} } })");
  InputFacts facts = Facts();
  EXPECT_EQ(facts.samples, 7);
  EXPECT_THAT(SampleShape(facts.inputs.at(0).shape()), ElementsAre(2, 3));
  EXPECT_EQ(facts.target_dtype, v1::DATA_TYPE_INT64);
}

TEST_F(ArtifactInputTest, MadeUpClassesNeedCrossEntropy) {
  Read(R"(train { dataset { random { samples: 7 input_shape: 2 classes: 5 } } batch_size: 4
                  loss { bce_with_logits {} } })");
  ExpectRefused("train.dataset.random", "bce_with_logits needs a target that is F32, F64, F16 or BF16; this is I64");
}

TEST_F(ArtifactInputTest, AFileThatIsNotInTheRequest) {
  ExpectRefused("train.dataset.path", "'train.safetensors' is not among");
}

TEST_F(ArtifactInputTest, AFileThatWasNotUploaded) {
  files_["train.safetensors"] = RefOf("elsewhere");
  ExpectRefused("train.dataset.path", "'train.safetensors' was not uploaded");
  files_["train.safetensors"].set_sha256("nonsense");
  ExpectRefused("train.dataset.path", "was not uploaded");
}

TEST_F(ArtifactInputTest, CorruptFiles) {
  const std::string good = SafetensorsBytes({Floats("x", {10, 2}), Ints("y", {10})});
  for (const std::string& content : {std::string(), std::string("garbage"), good.substr(0, 20),
                                     good.substr(0, good.size() - 1), std::string(8, '\xff') + good.substr(8)}) {
    files_["train.safetensors"] = Put(content);
    ExpectRefused("train.dataset.path", "'train.safetensors' cannot be used");
  }
}

TEST_F(ArtifactInputTest, CorruptWeights) {
  AddFile("train.safetensors", {Floats("x", {10, 2}), Ints("y", {10})});
  spec_.mutable_model()->set_weights("weights.safetensors");
  files_["weights.safetensors"] = Put("garbage");
  ExpectRefused("model.weights", "cannot be used");
}

TEST_F(ArtifactInputTest, ATensorThatIsNotInTheFileListsThoseThatAre) {
  AddFile("train.safetensors", {Floats("image", {10, 2}), Ints("y", {10})});
  ExpectRefused("train.dataset.inputs[0]", "no tensor 'x' in the file, which has: image, y");
}

TEST_F(ArtifactInputTest, TensorsOfUnequalBatchSize) {
  AddFile("train.safetensors", {Floats("x", {10, 2}), Ints("y", {9})});
  ExpectRefused("train.dataset.target", "unequal batch size: 'y' has 9 samples, 'x' has 10");
}

TEST_F(ArtifactInputTest, ASingleNumberHasNoSamples) {
  AddFile("train.safetensors", {Floats("x", {10, 2}), Ints("y", {})});
  ExpectRefused("train.dataset.target", "a single number");
}

TEST_F(ArtifactInputTest, AnEmptyDataSet) {
  AddFile("train.safetensors", {Floats("x", {0, 2}), Ints("y", {0})});
  ExpectRefused("train.dataset.path", "empty");
}

TEST_F(ArtifactInputTest, TypesThatTheLossCannotUse) {
  AddFile("train.safetensors", {Floats("x", {10, 2}), MakeTensor<int32_t>("y", v1::DATA_TYPE_INT32, {10})});
  ExpectRefused("train.dataset.target", "cross_entropy needs a target of numbers of classes, I64 or U8, or of");
  AddFile("train.safetensors", {Floats("x", {10, 2}), Ints("y", {10})});
  spec_.mutable_train()->mutable_loss()->mutable_bce_with_logits();
  ExpectRefused("train.dataset.target", "bce_with_logits needs a target that is F32, F64, F16 or BF16; this is I64");
}

TEST_F(ArtifactInputTest, ProbabilitiesOfClassesHaveNoIgnoredOnes) {
  AddFile("train.safetensors", {Floats("x", {10, 2}), Floats("y", {10, 3})});
  EXPECT_EQ(Facts().target_dtype, v1::DATA_TYPE_FLOAT32);
  spec_.mutable_train()->mutable_loss()->mutable_cross_entropy()->set_ignore_index(0);
  ExpectRefused("train.dataset.target", "has no use for ignore_index");
}

TEST_F(ArtifactInputTest, AnInputWithoutSamplesIsWholeAndNotCounted) {
  UseUnbatched();
  AddFile("train.safetensors", {Floats("x", {10, 2}), Floats("a", {3, 4}), Ints("y", {10})});
  const InputFacts facts = Facts();
  EXPECT_EQ(facts.samples, 10);
  EXPECT_FALSE(BeginsWithBatch(facts.inputs.at(0).shape()));
  EXPECT_THAT(SizesFor(facts.inputs.at(0).shape(), 7), ElementsAre(3, 4));
  EXPECT_THAT(SizesFor(facts.inputs.at(1).shape(), 7), ElementsAre(7, 2));
  AddFile("train.safetensors", {Floats("x", {10, 2}), Floats("a", {}), Ints("y", {10})});
  EXPECT_THAT(SizesFor(Facts().inputs.at(0).shape(), 7), IsEmpty());
}

TEST_F(ArtifactInputTest, AnInputWithoutSamplesIsInOneFile) {
  UseUnbatched();
  spec_.mutable_train()->mutable_dataset()->add_path("more.safetensors");
  const std::vector<TestTensor> tensors = {Floats("x", {10, 2}), Floats("a", {3, 4}), Ints("y", {10})};
  AddFile("train.safetensors", tensors);
  AddFile("more.safetensors", tensors);
  ExpectRefused("train.dataset.inputs[0]", "tensor 'a' is `unbatched`, and must be in one file");
}

TEST_F(ArtifactInputTest, InferenceInputsWithoutSamples) {
  Read(R"(infer { inputs: "in.safetensors" batch_size: 64 unbatched: "a" })");
  spec_.mutable_model()->mutable_exported()->set_path("m.pt2");
  AddFile("in.safetensors", {Floats("x", {10, 2}), Floats("a", {3})});
  const InputFacts facts = Facts();
  EXPECT_EQ(facts.samples, 10);
  EXPECT_THAT(SizesFor(facts.inputs.at(0).shape(), 7), ElementsAre(3));
  AddFile("in.safetensors", {Floats("x", {10, 2})});
  ExpectRefused("infer.unbatched[0]", "there is no tensor 'a' in the data, which has: x");
}

TEST_F(ArtifactInputTest, AnExportedModelMayBeEvaluatedOnOtherSizes) {
  AddFile("train.safetensors", {Ints("x", {10, 16}), Ints("y", {10, 16})});
  AddFile("test.safetensors", {Ints("x", {3, 24}), Ints("y", {3, 24})});
  UseEvaluation();
  spec_.mutable_model()->mutable_exported()->set_path("m.pt2");
  const InputFacts facts = Facts();
  EXPECT_THAT(SampleShape(facts.inputs.at(0).shape()), ElementsAre(16));
  EXPECT_THAT(SampleShape(facts.evaluation_inputs.at(0).shape()), ElementsAre(24));
  EXPECT_THAT(facts.evaluation_target_shape, ElementsAre(24));
  AddFile("test.safetensors", {Ints("x", {3, 16}), Ints("y", {3, 16})});
  EXPECT_THAT(Facts().evaluation_inputs, IsEmpty());
}

TEST_F(ArtifactInputTest, OtherSizesInEvaluationNeedToKnowWhatTheLossIsAMeanOf) {
  AddFile("train.safetensors", {Ints("x", {10, 16})});
  AddFile("test.safetensors", {Ints("x", {3, 24})});
  spec_.mutable_train()->mutable_dataset()->clear_target();
  UseEvaluation();
  spec_.mutable_train()->mutable_loss()->mutable_model_output();
  spec_.mutable_model()->mutable_exported()->set_path("m.pt2");
  spec_.mutable_pipeline()->set_chunks(2);
  ExpectRefused("train.loss.model_output.mean_of", "is required where evaluation data has other sizes");
  spec_.mutable_train()->mutable_loss()->mutable_model_output()->set_mean_of(v1::LOSS_MEAN_SAMPLES);
  EXPECT_EQ(Facts().evaluation_inputs.size(), 1);
}

TEST_F(ArtifactInputTest, AnInputOfATypeThatNoLayerTakes) {
  AddFile("train.safetensors", {MakeTensor<double>("x", v1::DATA_TYPE_FLOAT64, {10, 2}), Ints("y", {10})});
  ExpectRefused("train.dataset.inputs[0]", "must be F32 or I64, is F64");
}

TEST_F(ArtifactInputTest, EvaluationDataShapedUnlikeTrainingData) {
  AddFile("train.safetensors", {Floats("x", {10, 2}), Ints("y", {10})});
  AddFile("test.safetensors", {Floats("x", {3, 4}), Ints("y", {3})});
  UseEvaluation();
  ExpectRefused("train.evaluate.dataset.inputs[0]", "samples of shape [4] differ from training's [2]");
  AddFile("test.safetensors", {Ints("x", {3, 2}), Ints("y", {3})});
  ExpectRefused("train.evaluate.dataset.inputs[0]", "type I64 differs from training's F32");
  AddFile("test.safetensors", {Floats("x", {3, 2}), Ints("y", {3, 5})});
  ExpectRefused("train.evaluate.dataset.target", "samples of shape [5] differ from training's []");
}

TEST_F(ArtifactInputTest, DropLastThatLeavesNothing) {
  AddFile("train.safetensors", {Floats("x", {3, 2}), Ints("y", {3})});
  spec_.mutable_train()->set_drop_last(true);
  ExpectRefused("train.drop_last", "leaves nothing: the data set has 3 samples, a batch 4");
  spec_.mutable_train()->set_batch_size(3);
  EXPECT_EQ(Facts().samples, 3);
}

TEST_F(ArtifactInputTest, AllThatIsWrongIsListed) {
  AddFile("train.safetensors", {Ints("y", {10})});
  UseEvaluation().clear_inputs();
  spec_.mutable_model()->set_weights("weights.safetensors");
  absl::Status status = CheckInputs(spec_, files_, *store_).status();
  std::vector<std::string> fields;
  for (const FieldViolation& violation : FieldViolations(status)) fields.push_back(violation.field);
  EXPECT_THAT(fields, ElementsAre("model.weights", "train.dataset.inputs[0]", "train.evaluate.dataset.path"));
}

TEST_F(ArtifactInputTest, InferenceInputs) {
  Read(R"(infer { inputs: "in.safetensors" batch_size: 64 })");
  AddFile("in.safetensors", {Floats("input", {10, 3})});
  InputFacts facts = Facts();
  EXPECT_EQ(facts.samples, 10);
  EXPECT_THAT(SampleShape(facts.inputs.at(0).shape()), ElementsAre(3));
  EXPECT_EQ(facts.target_dtype, v1::DATA_TYPE_UNSPECIFIED);

  AddFile("in.safetensors", {Floats("x", {10, 3})});
  ExpectRefused("infer.inputs", "no tensor 'input'");
  AddFile("in.safetensors", {Floats("input", {0, 3})});
  ExpectRefused("infer.inputs", "empty");
}

TEST_F(ArtifactInputTest, MadeUpInferenceInputs) {
  Read(R"(infer { random_inputs { shape: [ 64, 1024 ] } batch_size: 64 })");
  InputFacts facts = Facts();
  EXPECT_EQ(facts.samples, 64);
  EXPECT_THAT(SampleShape(facts.inputs.at(0).shape()), ElementsAre(1024));
}

class TargetCheckTest : public ArtifactInputTest {
 protected:
  void UseTargets(const std::vector<int64_t>& shape, const std::vector<int64_t>& values) {
    AddFile("train.safetensors", {Floats("x", {shape[0], 2}), Ints("y", shape, values)});
  }
  absl::Status Check(int64_t classes) { return CheckTargets(spec_, files_, *store_, classes); }
};

TEST_F(TargetCheckTest, ClassesInRangeAndIgnoredOnesAreGood) {
  UseTargets({4}, {0, 9, -100, 5});
  EXPECT_TRUE(Check(10).ok()) << Check(10);
}

TEST_F(TargetCheckTest, TheFirstBadSampleIsNamed) {
  UseTargets({4}, {0, 9, 10, -1});
  ExpectViolation(Check(10), "train.dataset.target", "sample 2 has class 10, which is not in [0, 10)");
  UseTargets({4}, {0, -1, 10, 0});
  ExpectViolation(Check(10), "train.dataset.target", "sample 1 has class -1");
}

TEST_F(TargetCheckTest, ClassesMayBeBytes) {
  AddFile("train.safetensors", {Floats("x", {3, 2}), MakeTensor<uint8_t>("y", v1::DATA_TYPE_UINT8, {3}, {0, 255, 7})});
  ExpectViolation(Check(10), "train.dataset.target", "sample 1 has class 255");
  spec_.mutable_train()->mutable_loss()->mutable_cross_entropy()->set_ignore_index(255);
  EXPECT_TRUE(Check(10).ok()) << Check(10);
}

TEST_F(TargetCheckTest, ProbabilitiesAreAnyNumbers) {
  AddFile("train.safetensors", {Floats("x", {3, 2}), Floats("y", {3, 10})});
  EXPECT_TRUE(Check(10).ok()) << Check(10);
}

TEST_F(TargetCheckTest, WithTargetsPerPositionTheSampleIsNamed) {
  UseTargets({3, 2}, {0, 1, 2, 3, 4, 99});
  ExpectViolation(Check(10), "train.dataset.target", "sample 2 has class 99");
}

TEST_F(TargetCheckTest, IgnoreIndexIsTheSpecs) {
  UseTargets({2}, {-100, -1});
  spec_.mutable_train()->mutable_loss()->mutable_cross_entropy()->set_ignore_index(-1);
  ExpectViolation(Check(10), "train.dataset.target", "sample 0 has class -100");
}

TEST_F(TargetCheckTest, ABadClassBehindTheFirstPieceIsFound) {
  constexpr int64_t kSamples = 300000;  // More than two pieces of 1 MiB.
  std::vector<int64_t> values(kSamples, 1);
  values[kSamples - 1] = 10;
  AddFile("train.safetensors", {Floats("x", {kSamples}), Ints("y", {kSamples}, values)});
  ExpectViolation(Check(10), "train.dataset.target", "sample 299999 has class 10");
  values[kSamples - 1] = 9;
  AddFile("train.safetensors", {Floats("x", {kSamples}), Ints("y", {kSamples}, values)});
  EXPECT_TRUE(Check(10).ok());
}

TEST_F(TargetCheckTest, EvaluationTargetsAreCheckedToo) {
  UseTargets({2}, {0, 1});
  AddFile("test.safetensors", {Floats("x", {1, 2}), Ints("y", {1}, {2})});
  UseEvaluation();
  ExpectViolation(Check(2), "train.evaluate.dataset.target", "sample 0 has class 2");
}

TEST_F(TargetCheckTest, MadeUpClassesMustFitTheOutput) {
  Read(R"(train { dataset { random { samples: 7 input_shape: 2 classes: 5 } }
                  batch_size: 4 loss { cross_entropy {} } })");
  EXPECT_TRUE(Check(5).ok());
  ExpectViolation(Check(4), "train.dataset.random.classes", "is 5, but the model's output has 4");
}

TEST_F(TargetCheckTest, OtherLossesAndInferenceHaveNoClasses) {
  spec_.mutable_train()->mutable_loss()->mutable_mse();
  EXPECT_TRUE(Check(1).ok());
  Read(R"(infer { inputs: "in.safetensors" })");
  EXPECT_TRUE(Check(1).ok());
}

class WeightCheckTest : public ArtifactInputTest {
 protected:
  WeightCheckTest() {
    spec_.mutable_model()->set_weights("init.safetensors");
    AddModelTensor("0.weight", {3, 2}, v1::DATA_TYPE_FLOAT32);
    AddModelTensor("0.count", {}, v1::DATA_TYPE_INT64);
  }

  void AddModelTensor(const std::string& name, const std::vector<int64_t>& shape, v1::DataType dtype) {
    v1::ModelTensor& tensor = *layers_[0].add_tensors();
    tensor.set_name(name);
    tensor.mutable_shape()->Assign(shape.begin(), shape.end());
    tensor.set_dtype(dtype);
  }

  absl::Status Check(const std::vector<TestTensor>& tensors) {
    AddFile("init.safetensors", tensors);
    return LeftOut().status();
  }

  absl::StatusOr<std::vector<std::string>> LeftOut() { return CheckWeights(spec_, files_, *store_, layers_); }

  std::vector<v1::LayerInfo> layers_{1};
};

TEST_F(WeightCheckTest, TheModelsTensorsAreGood) {
  EXPECT_TRUE(Check({Floats("0.weight", {3, 2}), Ints("0.count", {})}).ok());
}

TEST_F(WeightCheckTest, AnotherShapeOrTypeIsTold) {
  ExpectViolation(Check({Floats("0.weight", {2, 3}), Ints("0.count", {})}), "model.weights",
                  "'0.weight' is F32 [2, 3], the model's is F32 [3, 2]");
  ExpectViolation(Check({Floats("0.weight", {3, 2}), Floats("0.count", {})}), "model.weights",
                  "'0.count' is F32 [], the model's is I64 []");
}

TEST_F(WeightCheckTest, AMissingTensorIsTold) {
  ExpectViolation(Check({Floats("0.weight", {3, 2})}), "model.weights", "there is no tensor '0.count' in it");
}

TEST_F(WeightCheckTest, UnexpectedTensorsAreLeftOutUnlessTheSpecIsStrict) {
  ASSERT_TRUE(Check({Floats("0.weight", {3, 2}), Ints("0.count", {}), Floats("1.bias", {1})}).ok());
  EXPECT_THAT(*LeftOut(), ElementsAre("1.bias"));
  spec_.mutable_model()->set_strict(true);
  ExpectViolation(LeftOut().status(), "model.weights", "the model has no '1.bias', which is in it");
}

TEST_F(WeightCheckTest, FloatingTypesAreConverted) {
  layers_[0].mutable_tensors(0)->set_dtype(v1::DATA_TYPE_BFLOAT16);
  EXPECT_TRUE(Check({Floats("0.weight", {3, 2}), Ints("0.count", {})}).ok());
}

TEST_F(WeightCheckTest, WhatWrappersAddToNamesDoesNotMatter) {
  EXPECT_TRUE(Check({Floats("module.0.weight", {3, 2}), Ints("_orig_mod.module.0.count", {})}).ok());
  EXPECT_TRUE(LeftOut()->empty());
  ExpectViolation(Check({Floats("module.0.weight", {3, 2}), Floats("_orig_mod.0.weight", {3, 2}), Ints("0.count", {})}),
                  "model.weights", "'_orig_mod.0.weight' and 'module.0.weight' are both the model's '0.weight'");
}

TEST_F(WeightCheckTest, AModelMayWrapTheOneThatTheFilesAreOf) {
  spec_.mutable_model()->set_weights_prefix("0.");
  EXPECT_TRUE(Check({Floats("weight", {3, 2}), Ints("count", {})}).ok());
}

TEST_F(WeightCheckTest, AModelWithoutValuesNeedsWeights) {
  layers_[0].mutable_tensors(0)->set_elsewhere(true);
  spec_.mutable_model()->mutable_exported()->set_path("m.pt2");
  EXPECT_TRUE(CheckHasValues(spec_, layers_).ok());
  spec_.mutable_model()->clear_weights();
  ExpectViolation(CheckHasValues(spec_, layers_), "model.weights",
                  "m.pt2 was exported without weights; it has no values of '0.weight'");
  layers_[0].mutable_tensors(0)->set_elsewhere(false);
  EXPECT_TRUE(CheckHasValues(spec_, layers_).ok());
}

TEST_F(WeightCheckTest, ACheckpointToResumeFromIsOfTheModel) {
  const auto check = [&](const std::vector<TestTensor>& tensors) {
    AddFile("model.safetensors", tensors);
    CheckpointFiles checkpoint;
    checkpoint.files["model.safetensors"] = files_.at("model.safetensors");
    return CheckResume(checkpoint, *store_, layers_);
  };
  EXPECT_TRUE(check({Floats("0.weight", {3, 2}), Ints("0.count", {})}).ok());
  ExpectViolation(check({Floats("0.weight", {4, 2}), Ints("0.count", {})}), "resume",
                  "'0.weight' is F32 [4, 2], the model's is F32 [3, 2]");
}

TEST_F(WeightCheckTest, ACheckpointToResumeFromMayBeInSeveralFiles) {
  AddFile("1", {Floats("0.weight", {3, 2})});
  AddFile("2", {Ints("0.count", {})});
  AddFile("3", {Ints("0.count", {})});
  CheckpointFiles checkpoint;
  checkpoint.files = {{"model-00001-of-00002.safetensors", files_.at("1")},
                      {"model-00002-of-00002.safetensors", files_.at("2")},
                      {"optimizer.safetensors", files_.at("3")}};
  EXPECT_TRUE(CheckResume(checkpoint, *store_, layers_).ok());
  checkpoint.files["model-00003-of-00003.safetensors"] = files_.at("3");
  ExpectViolation(CheckResume(checkpoint, *store_, layers_), "resume", "'0.count' is in two of the checkpoint's files");
  checkpoint.files.erase("model-00003-of-00003.safetensors");
  checkpoint.files.erase("model-00001-of-00002.safetensors");
  ExpectViolation(CheckResume(checkpoint, *store_, layers_), "resume", "there is no tensor '0.weight' in it");
}

TEST_F(WeightCheckTest, AResumedOptimizerIsOfTheCheckpointsKind) {
  const auto check = [&](const std::string& optimizer, const std::vector<TestTensor>& state) {
    AddFile("optimizer.safetensors", state);
    CheckpointFiles checkpoint;
    checkpoint.files["optimizer.safetensors"] = files_.at("optimizer.safetensors");
    v1::Optimizer spec;
    if (optimizer == "adamw") spec.mutable_adamw();
    if (optimizer == "sgd") spec.mutable_sgd();
    if (optimizer == "momentum") spec.mutable_sgd()->set_momentum(0.9);
    v1::Train train;
    *train.mutable_optimizer() = spec;
    return CheckResumedOptimizer(train, checkpoint, *store_);
  };
  const std::vector<TestTensor> adam = {Floats("a/b.weight/exp_avg", {1}), Floats("a/b.weight/exp_avg_sq", {1}),
                                        Ints("a/b.weight/step", {})};
  const std::vector<TestTensor> momentum = {Floats("0.weight/momentum_buffer", {1})};
  for (const char* kind : {"adamw", "sgd", "momentum"}) EXPECT_TRUE(check(kind, {}).ok()) << kind;
  EXPECT_TRUE(check("adamw", adam).ok());
  EXPECT_TRUE(check("momentum", momentum).ok());
  ExpectViolation(check("sgd", momentum), "train.optimizer", "which is that of sgd with a momentum");
  ExpectViolation(check("momentum", adam), "train.optimizer", "which is that of adam or adamw");
  ExpectViolation(check("adamw", momentum), "train.optimizer", "momentum_buffer");
}

TEST_F(WeightCheckTest, AResumedOptimizerWorksInTheCheckpointsPrecision) {
  const auto check = [&](v1::Precision precision, const std::vector<TestTensor>& state) {
    AddFile("optimizer.safetensors", state);
    CheckpointFiles checkpoint;
    checkpoint.files["optimizer.safetensors"] = files_.at("optimizer.safetensors");
    v1::Train train;
    train.mutable_optimizer()->mutable_sgd();
    train.set_precision(precision);
    return CheckResumedOptimizer(train, checkpoint, *store_);
  };
  const std::vector<TestTensor> bf16 = {Floats("precision/bf16", {}), Floats("0.weight/master", {1})};
  const std::vector<TestTensor> fp16 = {Floats("precision/fp16", {}), Ints("precision/good_steps", {})};
  EXPECT_TRUE(check(v1::PRECISION_FP32, {}).ok());
  EXPECT_TRUE(check(v1::PRECISION_BF16, bf16).ok());
  EXPECT_TRUE(check(v1::PRECISION_FP16, fp16).ok());
  ExpectViolation(check(v1::PRECISION_BF16, {}), "train.precision",
                  "is bf16, and what the checkpoint has is of training in fp32");
  ExpectViolation(check(v1::PRECISION_FP32, bf16), "train.precision", "training in bf16");
  ExpectViolation(check(v1::PRECISION_BF16, fp16), "train.precision", "training in fp16");
}

TEST_F(WeightCheckTest, ATiedParameterNeedsOneOfItsNames) {
  layers_[0].mutable_tensors(0)->add_aliases("head.weight");
  layers_.push_back(layers_[0]);  // On two layers: told once.
  EXPECT_TRUE(Check({Floats("head.weight", {3, 2}), Ints("0.count", {})}).ok());
  EXPECT_TRUE(Check({Floats("head.weight", {3, 2}), Floats("0.weight", {3, 2}), Ints("0.count", {})}).ok());
  ExpectViolation(Check({Ints("0.count", {})}), "model.weights",
                  "there is no tensor '0.weight' or 'head.weight' in it");
  ExpectViolation(Check({Floats("head.weight", {3, 2}), Floats("0.weight", {1}), Ints("0.count", {})}), "model.weights",
                  "'0.weight' is F32 [1], the model's is F32 [3, 2]");
}

class ShardedWeightsTest : public WeightCheckTest {
 protected:
  ShardedWeightsTest() {
    spec_.mutable_model()->set_weights("hf/init.index.json");
    SetIndex(R"({"weight_map": {"0.weight": "1.safetensors", "0.count": "2.safetensors"}})");
    AddFile("hf/1.safetensors", {Floats("0.weight", {3, 2})});
    AddFile("hf/2.safetensors", {Ints("0.count", {})});
  }
  void SetIndex(const std::string& text) { files_["hf/init.index.json"] = Put(text); }
  absl::Status Check() { return LeftOut().status(); }
};

TEST_F(ShardedWeightsTest, TheShardsTogetherAreTheModels) { EXPECT_TRUE(Check().ok()) << Check(); }

TEST_F(ShardedWeightsTest, WhatTheIndexNamesMustBeThere) {
  AddFile("hf/2.safetensors", {Ints("0.counter", {})});
  ExpectViolation(Check(), "model.weights",
                  "'hf/2.safetensors' has no tensor '0.count', which the index says is there");
  files_["hf/2.safetensors"] = Put("garbage");
  ExpectViolation(Check(), "model.weights", "'hf/2.safetensors' cannot be used");
  files_.erase("hf/2.safetensors");
  ExpectViolation(Check(), "model.weights", "'hf/2.safetensors' is not among the request's files");
}

TEST_F(ShardedWeightsTest, ABadIndexIsRefused) {
  SetIndex("{");
  ExpectViolation(Check(), "model.weights", "'hf/init.index.json' cannot be used: not a good index");
  SetIndex(R"({"weight_map": {"0.weight": "../../secret"}})");
  ExpectViolation(Check(), "model.weights", "'../../secret' of '0.weight' is no file beside the index");
}

TEST_F(ShardedWeightsTest, NamesShapesAndTypesAreCheckedOverAllShards) {
  AddFile("hf/1.safetensors", {Floats("0.weight", {2, 3})});
  ExpectViolation(Check(), "model.weights", "'0.weight' is F32 [2, 3], the model's is F32 [3, 2]");
  AddFile("hf/1.safetensors", {Floats("0.weight", {3, 2})});
  SetIndex(R"({"weight_map": {"0.weight": "1.safetensors"}})");
  ExpectViolation(Check(), "model.weights", "there is no tensor '0.count' in it");
}

TEST_F(ShardedWeightsTest, AreOpenedBeforeTheModelIsKnown) {
  AddFile("train.safetensors", {Floats("x", {10, 2}), Ints("y", {10})});
  EXPECT_EQ(Facts().samples, 10);
  files_.erase("hf/1.safetensors");
  ExpectRefused("model.weights", "'hf/1.safetensors' is not among the request's files");
}

TEST_F(WeightCheckTest, WithoutWeightsThereIsNothingToCheck) {
  spec_.mutable_model()->clear_weights();
  EXPECT_TRUE(LeftOut().ok());
}

}  // namespace
}  // namespace gpipe::orchestrator
