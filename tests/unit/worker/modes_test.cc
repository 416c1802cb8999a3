// An archive with a program for training and another one for evaluation (tests/golden/make_exported.py).

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "common/file.h"
#include "common/grpc_status.h"
#include "tests/unit/paths.h"
#include "tests/unit/worker/golden_archives.h"
#include "tests/unit/worker/memory_artifacts.h"
#include "worker/data/tensor_file.h"
#include "worker/exported/evaluation.h"
#include "worker/exported/inspect_exported.h"
#include "worker/exported/paired_cuts.h"

namespace gpipe::worker {
namespace {

using ::testing::HasSubstr;

const std::filesystem::path kArchive = SourceFolder() / "tests/golden/two_programs/modes.pt2";

// One of the programs with all places where it may be cut.
struct Program {
  explicit Program(ModelMode mode)
      : archive(*Archive::Open(kArchive, mode)), units(*Units::Find(*archive)), begins(units.cuts()) {
    begins.insert(begins.begin(), 0);
  }
  ProgramCuts cuts() const { return {*archive, units, begins}; }
  size_t nodes() const { return archive->program().graph.nodes.size(); }

  std::unique_ptr<Archive> archive;
  Units units;
  std::vector<size_t> begins;
};

// Parameters and saved buffers that the nodes use.
std::set<std::string> StateOf(const Program& program, size_t first, size_t last) {
  std::set<std::string> names;
  for (const exported::Input* input : program.units.InputsOf(program.units.PartOf(first, last, {}))) {
    if (input->kind == exported::InputKind::kParameter || input->persistent) {
      names.insert(program.archive->CanonicalName(input->name));
    }
  }
  return names;
}

TEST(ModesTest, AnArchiveOpensForEach) {
  const Program training(ModelMode::kTraining), evaluation(ModelMode::kEvaluation);
  EXPECT_FALSE(training.archive->is_evaluation());
  EXPECT_TRUE(evaluation.archive->is_evaluation());
  EXPECT_EQ(training.archive->program().user_outputs.size(), 1);
  EXPECT_EQ(evaluation.archive->program().user_outputs.size(), 2);
  const std::unique_ptr<Archive> only = OpenGoldenArchive("tied");
  EXPECT_FALSE(only->is_evaluation());
}

TEST(ModesTest, TheEvaluationProgramRunsAsItIs) {
  const Program program(ModelMode::kEvaluation);
  std::vector<std::string> outputs;
  for (const exported::UserOutput& output : program.archive->program().user_outputs) {
    outputs.push_back(std::get<exported::ValueName>(output.value.value).name);
  }
  const auto layer = GraphLayer::Create(*program.archive, program.units.PartOf(0, program.nodes(), outputs), {});
  ASSERT_TRUE(layer.ok()) << layer.status();
  const auto golden = TensorFile::Open(std::filesystem::path(kArchive).replace_extension("safetensors"));
  ASSERT_TRUE(golden.ok()) << golden.status();
  LayerContext context;
  context.training = false;
  const std::vector<at::Tensor> found = (*layer)->Forward(context, {*(*golden)->Get("input.0")});
  EXPECT_TRUE(at::allclose(found[0], *(*golden)->Get("evaluation.scores"), 1e-5, 1e-6));
  EXPECT_GT(found[1].eq(0).sum().item<int64_t>(), 0) << "the dropout is always on";
}

TEST(ModesTest, TensorsAreSharedByNameAndConstantsAreNot) {
  const Program training(ModelMode::kTraining), evaluation(ModelMode::kEvaluation);
  int constants = 0;
  for (const exported::Input& input : training.archive->program().inputs) {
    if (input.kind == exported::InputKind::kUserInput) continue;
    const bool same = training.archive->KeyOf(input.name) == evaluation.archive->KeyOf(input.name);
    EXPECT_EQ(same, input.kind != exported::InputKind::kConstantTensor) << input.name;
    if (!same) ++constants;
  }
  EXPECT_EQ(constants, 1);
}

TEST(ModesTest, PairedCutsKeepTensorsTogether) {
  const Program training(ModelMode::kTraining), evaluation(ModelMode::kEvaluation);
  std::vector<PairedCut> cuts = PairCuts(training.cuts(), evaluation.cuts());
  ASSERT_GE(cuts.size(), 3);
  EXPECT_EQ(cuts.front().training, 0);
  EXPECT_EQ(cuts.front().evaluation, 0);
  EXPECT_LT(cuts.back().evaluation, evaluation.nodes());
  cuts.push_back({training.nodes(), evaluation.nodes()});
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    EXPECT_LT(cuts[i].training, cuts[i + 1].training);
    EXPECT_LE(cuts[i].evaluation, cuts[i + 1].evaluation);
    std::set<std::string> used = StateOf(evaluation, cuts[i].evaluation, cuts[i + 1].evaluation);
    used.erase("scale");  // Training has no use for it.
    const std::set<std::string> there = StateOf(training, cuts[i].training, cuts[i + 1].training);
    EXPECT_TRUE(std::includes(there.begin(), there.end(), used.begin(), used.end())) << i;
  }
}

TEST(ModesTest, RandomNumbersOfAnUnknownKindNeedAnEvaluationProgram) {
  EXPECT_TRUE(CheckEvaluates(*OpenGoldenArchive("dropouts")).ok());
  EXPECT_TRUE(CheckEvaluates(*Program(ModelMode::kEvaluation).archive).ok());
  const absl::Status alone = CheckEvaluates(*Program(ModelMode::kTraining).archive);
  EXPECT_EQ(alone.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(alone.message(), HasSubstr("aten.bernoulli_"));
  EXPECT_THAT(alone.message(), HasSubstr("save it with gpipe.export"));
}

class InspectModesTest : public ::testing::Test {
 protected:
  InspectModesTest() {
    request_.mutable_model()->mutable_exported()->set_path("modes.pt2");
    (*request_.mutable_files())["modes.pt2"] = artifacts_.Add(*ReadFile(kArchive));
    v1::ModelValue& input = *request_.add_inputs();
    input.set_name("x");
    input.set_dtype(v1::DATA_TYPE_FLOAT32);
    input.add_shape()->set_per_sample(1);
    input.add_shape()->set_fixed(6);
  }

  v1::Inspected Inspect() {
    v1::Inspected found = InspectExported(request_, artifacts_, at::kCPU);
    EXPECT_TRUE(FromProto(found.status()).ok()) << FromProto(found.status());
    return found;
  }

  MemoryArtifacts artifacts_;
  v1::Inspect request_;
};

// A job may be running meanwhile, whose operators draw from it.
TEST_F(InspectModesTest, MeasuringDrawsNothingFromTheProcesssGenerator) {
  (*request_.mutable_files())["modes.pt2"] =
      artifacts_.Add(*ReadFile(SourceFolder() / "tests/golden/exported/frozen.pt2"));
  request_.mutable_inputs(0)->mutable_shape(1)->set_fixed(4);
  request_.set_profile_micro_batch(3);
  const at::Tensor before = at::globalContext().defaultGenerator(at::kCPU).get_state();
  EXPECT_GT(Inspect().layers(0).forward_nanos(), 0);
  EXPECT_TRUE(at::equal(before, at::globalContext().defaultGenerator(at::kCPU).get_state()));
}

TEST_F(InspectModesTest, InferenceSeesTheEvaluationProgram) {
  const v1::Inspected found = Inspect();
  const v1::LayerInfo& last = found.layers(found.layers_size() - 1);
  ASSERT_EQ(last.outputs_size(), 2);
  EXPECT_EQ(last.outputs(0).name(), "scores");
  EXPECT_EQ(last.outputs(1).name(), "random");
}

TEST_F(InspectModesTest, ATrainingThatEvaluatesHasBothCutTogether) {
  request_.mutable_loss()->mutable_mse()->set_output("scores");
  request_.add_target_shape(3);
  request_.set_target_dtype(v1::DATA_TYPE_FLOAT32);
  const v1::Inspected alone = Inspect();
  for (const v1::LayerInfo& layer : alone.layers()) EXPECT_FALSE(layer.has_evaluation());
  request_.set_evaluate(true);
  const v1::Inspected found = Inspect();
  ASSERT_GE(found.layers_size(), 3);
  std::vector<std::string> untrained;
  for (const v1::LayerInfo& layer : found.layers()) {
    EXPECT_TRUE(layer.has_evaluation());
    for (const v1::ModelValue& value : layer.evaluation().makes()) EXPECT_FALSE(value.requires_grad());
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      if (!tensor.trainable()) untrained.push_back(tensor.name());
    }
  }
  EXPECT_THAT(untrained, ::testing::Contains("scale")) << "evaluation's own buffer has its place, too";
}

}  // namespace
}  // namespace gpipe::worker
