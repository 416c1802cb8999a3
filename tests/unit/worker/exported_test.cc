// Exported programs against PyTorch's own numbers (tests/golden/make_exported.py), whole and cut in two.

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <tuple>

#include "absl/strings/match.h"
#include "tests/unit/paths.h"
#include "tests/unit/worker/close.h"
#include "tests/unit/worker/cut_program.h"
#include "tests/unit/worker/golden_archives.h"
#include "tests/unit/worker/memory_artifacts.h"
#include "worker/data/tensor_file.h"
#include "worker/exported/graph_layer.h"
#include "worker/exported/size_arithmetic.h"
#include "worker/exported/units.h"

namespace gpipe::worker {
namespace {

using ::caffe2::serialize::PyTorchStreamReader;
using ::caffe2::serialize::PyTorchStreamWriter;
using ::testing::HasSubstr;

const std::filesystem::path kFolder = SourceFolder() / "tests/golden/exported";

const std::string& FirstParameter(const Archive& archive) {
  const auto& inputs = archive.program().inputs;
  return std::find_if(inputs.begin(), inputs.end(),
                      [](const exported::Input& input) { return input.kind == exported::InputKind::kParameter; })
      ->name;
}

GraphLayer::Part WholeProgram(const Archive& archive) {
  const exported::Program& program = archive.program();
  std::vector<std::string> outputs;
  for (const exported::UserOutput& output : program.user_outputs) {
    outputs.push_back(std::get<exported::ValueName>(output.value.value).name);
  }
  const auto units = Units::Find(archive);
  EXPECT_TRUE(units.ok()) << units.status();
  GraphLayer::Part part = units->PartOf(0, program.graph.nodes.size(), outputs);
  part.entering.clear();  // All of the inputs, whether used or not.
  for (const exported::UserInput& input : program.user_inputs) part.entering.push_back(input.value);
  return part;
}

class ExportedGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    archive_ = OpenGoldenArchive(GetParam());
    ASSERT_NE(archive_, nullptr);
    file_ = OpenGoldenTensors(GetParam());
    ASSERT_NE(file_, nullptr);
    auto layer = GraphLayer::Create(*archive_, WholeProgram(*archive_), {});
    ASSERT_TRUE(layer.ok()) << layer.status();
    layer_ = *std::move(layer);
    for (const LayerTensor& entry : layer_->tensors()) entry.tensor.set_requires_grad(entry.parameter);
  }

  bool Has(const std::string& name) const { return file_->header().tensors.contains(name); }
  at::Tensor Golden(const std::string& name) const { return file_->Get(name).value(); }

  std::vector<at::Tensor> Inputs() const {
    std::vector<at::Tensor> inputs;
    for (const exported::UserInput& input : archive_->program().user_inputs) {
      inputs.push_back(Golden("input." + input.name));
    }
    return inputs;
  }

  std::vector<at::Tensor> Run(bool training, bool recomputing = false) {
    LayerContext context;
    context.training = training;
    context.recomputing = recomputing;
    return layer_->Forward(context, Inputs());
  }

  std::vector<at::Tensor> RunToBeRepeated() {
    const at::NoGradGuard no_gradients;
    return Run(/*training=*/true);
  }

  void ExpectOutputs(const std::string& prefix, const std::vector<at::Tensor>& outputs) {
    const auto& named = archive_->program().user_outputs;
    for (size_t i = 0; i < named.size(); ++i) ExpectClose(outputs[i], Golden(prefix + named[i].name), named[i].name);
  }

  // Undefined where an output has none.
  std::vector<at::Tensor> GoldenGradients() const {
    std::vector<at::Tensor> gradients;
    for (const exported::UserOutput& output : archive_->program().user_outputs) {
      const std::string name = "output_gradient." + output.name;
      gradients.push_back(Has(name) ? Golden(name) : at::Tensor());
    }
    return gradients;
  }

  static void Backward(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& gradients) {
    torch::autograd::variable_list roots, root_gradients;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!gradients[i].defined() || !outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      root_gradients.push_back(gradients[i]);
    }
    if (!roots.empty()) torch::autograd::backward(roots, root_gradients);
  }

  // Of the program's gradients, at least 1: what the sums are made of that one of them may cancel in.
  double LargestGradient() const {
    double largest = 1;
    for (const LayerTensor& entry : layer_->tensors()) {
      if (entry.tensor.grad().defined()) largest = std::max(largest, LargestOf(entry.tensor.grad()));
    }
    return largest;
  }

  void ExpectGradientsAndBuffers() {
    const double terms = LargestGradient();
    for (const LayerTensor& entry : layer_->tensors()) {
      if (Has("gradient." + entry.name)) {
        ExpectClose(entry.tensor.grad(), Golden("gradient." + entry.name), entry.name, terms);
      } else {
        EXPECT_FALSE(entry.tensor.grad().defined()) << entry.name;
      }
      if (Has("after." + entry.name)) ExpectClose(entry.tensor, Golden("after." + entry.name), entry.name);
    }
  }

  bool Deterministic() const { return Has("output." + archive_->program().user_outputs.front().name); }

  std::unique_ptr<Archive> archive_;
  std::unique_ptr<TensorFile> file_;
  std::unique_ptr<GraphLayer> layer_;
};

TEST_P(ExportedGoldenTest, TrainsAsPyTorchDoes) {
  if (Deterministic()) {
    const std::vector<at::Tensor> outputs = Run(/*training=*/true);
    ExpectOutputs("output.", outputs);
    Backward(outputs, GoldenGradients());
    ExpectGradientsAndBuffers();
  }
  ExpectOutputs("evaluation.", Run(/*training=*/false));
}

TEST_P(ExportedGoldenTest, RecomputingRepeatsTheForwardAndLeavesTheBuffers) {
  const std::vector<at::Tensor> first = RunToBeRepeated();
  std::vector<at::Tensor> buffers;
  for (const LayerTensor& entry : layer_->tensors()) buffers.push_back(entry.tensor.clone());
  const std::vector<at::Tensor> again = Run(/*training=*/true, /*recomputing=*/true);
  // Without gradients LibTorch may choose another kernel (it does for LSTM).
  for (size_t i = 0; i < first.size(); ++i) ExpectClose(again[i], first[i], "an output");
  for (size_t i = 0; i < buffers.size(); ++i) EXPECT_TRUE(at::equal(layer_->tensors()[i].tensor, buffers[i]));
}

std::vector<std::vector<size_t>> EachCutAndAll(const std::vector<size_t>& cuts) {
  std::vector<std::vector<size_t>> choices = {cuts};
  for (const size_t cut : cuts) choices.push_back({cut});
  return choices;
}

TEST_P(ExportedGoldenTest, EveryCutTrainsAsTheWhole) {
  const auto units = Units::Find(*archive_);
  ASSERT_TRUE(units.ok()) << units.status();
  const std::vector<at::Tensor> whole = Run(/*training=*/true);
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& output : whole) gradients.push_back(at::linspace(-1, 1, output.numel()).view(output.sizes()));
  Backward(whole, gradients);
  for (const std::vector<size_t>& cuts : EachCutAndAll(units->cuts())) {
    SCOPED_TRACE(::testing::PrintToString(cuts));
    const auto cut = CutProgram::Create(*archive_, *units, cuts);
    ASSERT_TRUE(cut.ok()) << cut.status();
    const std::vector<at::Tensor> outputs = (*cut)->Forward(Inputs());
    for (size_t i = 0; i < whole.size(); ++i) ExpectClose(outputs[i], whole[i], "an output");
    (*cut)->Backward(gradients);
    const double terms = LargestGradient();
    for (const LayerTensor& entry : layer_->tensors()) {
      if (entry.tensor.grad().defined()) {
        ExpectClose((*cut)->GradientOf(entry.name), entry.tensor.grad(), entry.name, terms);
      }
      if (!entry.parameter) ExpectClose((*cut)->CopiesOf(entry.name).front(), entry.tensor, entry.name);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ExportedGoldenTest, ::testing::ValuesIn(GoldenArchives()),
                         [](const auto& info) { return info.param; });

TEST(ExportedTest, CutsKeepViewsAndTheirWritesTogether) {
  const auto archive = OpenGoldenArchive("in_place");
  const auto units = Units::Find(*archive);
  ASSERT_TRUE(units.ok()) << units.status();
  const auto& nodes = archive->program().graph.nodes;
  for (const size_t cut : units->cuts()) {
    // Behind the last write: the linear layer's result is written to through views until then.
    EXPECT_GT(cut, 0u);
    for (size_t i = cut; i < nodes.size(); ++i) EXPECT_FALSE(nodes[i].target.ends_with("_.Tensor")) << nodes[i].name;
  }
  EXPECT_FALSE(units->cuts().empty());
}

TEST(ExportedTest, MasksAndSizesAreNoReasonAgainstACut) {
  const auto archive = OpenGoldenArchive("tied");
  const auto units = Units::Find(*archive);
  ASSERT_TRUE(units.ok()) << units.status();
  const auto& nodes = archive->program().graph.nodes;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].name != "masked_fill") continue;
    EXPECT_THAT(units->cuts(), ::testing::Contains(i));
    EXPECT_THAT(units->PartOf(i, nodes.size(), {}).entering, ::testing::Not(::testing::Contains("bitwise_not")));
  }
}

TEST(ExportedTest, EachModuleBeginsOnceAtACutOrWithinAPart) {
  const auto archive = OpenGoldenArchive("tied");
  const auto units = Units::Find(*archive);
  ASSERT_TRUE(units.ok()) << units.status();
  const size_t nodes = archive->program().graph.nodes.size();
  std::vector<std::string> begin, within;
  size_t first = 0;
  for (size_t i = 0; i <= units->cuts().size(); ++i) {
    const size_t last = i < units->cuts().size() ? units->cuts()[i] : nodes;
    const Units::Modules modules = units->ModulesOf(first, last);
    begin.insert(begin.end(), modules.begin.begin(), modules.begin.end());
    within.insert(within.end(), modules.within.begin(), modules.within.end());
    first = last;
  }
  EXPECT_THAT(begin, ::testing::ElementsAre("embedding", "norm", "up", "down", "head"));
  EXPECT_THAT(within, ::testing::IsEmpty());
  EXPECT_THAT(units->ModulesOf(0, nodes).begin, ::testing::ElementsAre("embedding"));
  EXPECT_THAT(units->ModulesOf(0, nodes).within, ::testing::ElementsAre("norm", "up", "down", "head"));
}

TEST(ExportedTest, NamesAreTheModels) {
  const auto archive = OpenGoldenArchive("tied");
  const exported::Program& program = archive->program();
  ASSERT_EQ(program.user_inputs.size(), 2u);
  EXPECT_EQ(program.user_inputs[0].name, "ids");
  EXPECT_EQ(program.user_inputs[1].name, "scale");
  ASSERT_EQ(program.user_outputs.size(), 2u);
  EXPECT_EQ(program.user_outputs[0].name, "logits");
  EXPECT_EQ(program.user_outputs[1].name, "pooled");
  EXPECT_EQ(archive->CanonicalName("head.weight"), "embedding.weight");
}

TEST(ExportedTest, RandomOperatorsAreAFunctionOfSeedStepAndMicroBatch) {
  const auto archive = OpenGoldenArchive("dropouts");
  auto layer = GraphLayer::Create(*archive, WholeProgram(*archive), {});
  ASSERT_TRUE(layer.ok()) << layer.status();
  const at::Tensor input = at::arange(72, at::kFloat).sin().reshape({3, 3, 2, 4});
  const auto run = [&](uint64_t seed, int64_t step, int micro_batch) {
    return (*layer)->Forward({true, true, seed, step, micro_batch}, {input}).front();
  };
  EXPECT_TRUE(at::equal(run(1, 2, 3), run(1, 2, 3)));
  EXPECT_FALSE(at::equal(run(1, 2, 3), run(2, 2, 3)));
  EXPECT_FALSE(at::equal(run(1, 2, 3), run(1, 3, 3)));
  EXPECT_FALSE(at::equal(run(1, 2, 3), run(1, 2, 4)));
}

TEST(ExportedTest, RecomputingSeesTheBuffersThatTheFirstForwardSaw) {
  const auto archive = OpenGoldenArchive("statistics");
  auto layer = GraphLayer::Create(*archive, WholeProgram(*archive), {});
  ASSERT_TRUE(layer.ok()) << layer.status();
  const auto run = [&](int micro_batch, bool recomputing) {
    const at::AutoGradMode gradients(recomputing);
    return (*layer)->Forward({true, recomputing, 1, 0, micro_batch}, {at::ones({3, 4}) * micro_batch}).front();
  };
  const at::Tensor first = run(0, false), second = run(1, false);
  EXPECT_TRUE(at::equal(run(1, true), second));
  EXPECT_TRUE(at::equal(run(0, true), first));
}

TEST(ExportedTest, OtherBatchSizesRun) {
  const auto archive = OpenGoldenArchive("tied");
  auto layer = GraphLayer::Create(*archive, WholeProgram(*archive), {});
  ASSERT_TRUE(layer.ok()) << layer.status();
  for (const int64_t batch : {1, 2, 7}) {
    const auto outputs = (*layer)->Forward({}, {at::zeros({batch, 6}, at::kLong), at::ones({batch})});
    EXPECT_EQ(outputs.front().size(0), batch);
  }
}

TEST(ExportedTest, ACutArchiveIsRefused) {
  const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) / "cut.pt2";
  std::filesystem::copy_file(kFolder / "tied.pt2", path, std::filesystem::copy_options::overwrite_existing);
  std::filesystem::resize_file(path, 1000);
  const auto archive = Archive::Open(path);
  EXPECT_EQ(archive.status().code(), absl::StatusCode::kInvalidArgument) << archive.status();
  EXPECT_THAT(archive.status().message(), HasSubstr("cut.pt2: not a model that can be run"));
  EXPECT_EQ(Archive::Open("/nowhere.pt2").status().code(), absl::StatusCode::kNotFound);
}

// At the orchestrator, which can be lost at any time.
class RemoteArchiveTest : public ::testing::Test {
 protected:
  RemoteArchiveTest() : content_(*ReadFile(kFolder / "tied.pt2")), ref_(artifacts_.Add(content_)) {}

  const std::string content_;
  MemoryArtifacts artifacts_;
  const v1::ArtifactRef ref_;
};

TEST_F(RemoteArchiveTest, HasTheTensorsOfTheFile) {
  const auto remote = Archive::Open(artifacts_, ref_);
  ASSERT_TRUE(remote.ok()) << remote.status();
  const auto local = OpenGoldenArchive("tied");
  for (const exported::Input& input : local->program().inputs) {
    if (input.kind != exported::InputKind::kParameter) continue;
    EXPECT_TRUE(at::equal(*(*remote)->Load(input.name, at::kCPU), *local->Load(input.name, at::kCPU))) << input.name;
  }
}

// The same archive with so much after its tensors that opening it does not read them along.
std::string WithGapAfterTensors(const std::filesystem::path& path) {
  PyTorchStreamReader reader(path.string());
  std::vector<std::string> records = reader.getAllRecords();
  std::erase_if(records, [](const std::string& name) {
    return absl::StrContains(name, "version") || absl::StrContains(name, "serialization_id");
  });
  const auto gap = std::partition(records.begin(), records.end(),
                                  [](const std::string& name) { return absl::StrContains(name, "weight_"); });
  records.insert(gap, "gap");
  std::string written;
  PyTorchStreamWriter writer([&](const void* data, size_t size) {
    written.append(static_cast<const char*>(data), size);
    return size;
  });
  for (const std::string& name : records) {
    const std::string filler(200'000, ' ');
    if (name == "gap") {
      writer.writeRecord(name, filler.data(), filler.size());
      continue;
    }
    const auto [data, size] = reader.getRecord(name);
    writer.writeRecord(name, data.get(), size);
  }
  writer.writeEndOfFile();
  return written;
}

TEST_F(RemoteArchiveTest, ALostOrchestratorIsNotABadModel) {
  const v1::ArtifactRef ref = artifacts_.Add(WithGapAfterTensors(kFolder / "tied.pt2"));
  const auto archive = Archive::Open(artifacts_, ref);
  ASSERT_TRUE(archive.ok()) << archive.status();
  artifacts_.Lose(absl::UnavailableError("going away"));
  EXPECT_EQ(Archive::Open(artifacts_, ref).status(), absl::UnavailableError("going away"));
  const std::string& name = FirstParameter(**archive);
  EXPECT_EQ((*archive)->Load(name, at::kCPU).status(), absl::UnavailableError("going away"));
}

TEST_F(RemoteArchiveTest, WhatIsNoArchiveIsRefused) {
  const v1::ArtifactRef cut = artifacts_.Add(content_.substr(0, 1000));
  EXPECT_EQ(Archive::Open(artifacts_, cut).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Archive::Open(artifacts_, artifacts_.Add("")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RemoteArchiveTest, ReadsOfAnySizeAndPlaceAreRight) {
  std::string content(300'000, ' ');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 31 + i / 4096);
  const ArtifactReader reader(artifacts_, artifacts_.Add(content));
  const std::vector<std::pair<int, int>> ranges = {{0, 30},     {20, 30},       {65'500, 100}, {65'530, 200'000},
                                                   {5, 65'536}, {299'990, 100}, {300'000, 1},  {0, 300'000}};
  for (const auto& [position, count] : ranges) {
    std::string found(count, ' ');
    found.resize(reader.read(position, found.data(), count, ""));
    EXPECT_EQ(found, content.substr(position, count)) << position;
  }
  EXPECT_TRUE(reader.status().ok());
}

TEST_F(RemoteArchiveTest, OnlyWhatIsAskedForTravels) {
  std::string content(1 << 20, ' ');
  const ArtifactReader reader(artifacts_, artifacts_.Add(content));
  for (int i = 0; i < 100; ++i) reader.read(500'000 + 50 * i, content.data(), 50, "");
  EXPECT_LE(artifacts_.bytes_read(), 1 << 16);
}

c10::IValue Compute(const std::string& target, const std::vector<exported::Argument>& operands) {
  exported::Node node;
  node.target = target;
  for (const exported::Argument& operand : operands) node.inputs.push_back({"", operand});
  node.outputs.push_back({.names = {"result"}});
  Slots slots;
  const auto instruction = MakeSizeArithmetic(node, slots);
  Frame frame(slots.size());
  (*instruction)->Run({}, frame);
  return frame[slots.Find("result")];
}

TEST(SizeArithmeticTest, ComputesAsPythonDoes) {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
  const std::vector<std::tuple<std::string, int64_t, int64_t, int64_t>> cases = {
      {"_operator.floordiv", -7, 2, -4}, {"_operator.floordiv", 7, -1, -7}, {"_operator.mod", -7, 3, 2},
      {"_operator.mod", kMin, -1, 0},    {"_operator.pow", 3, 4, 81},       {"_operator.pow", -2, 63, kMin},
      {"_operator.pow", 1, kMax, 1},     {"_operator.pow", 7, 0, 1},        {"_operator.add", kMax, -1, kMax - 1},
      {"_operator.sub", -1, kMax, kMin}};
  for (const auto& [target, a, b, expected] : cases) {
    EXPECT_EQ(Compute(target, {{a}, {b}}).toInt(), expected) << target << " " << a << " " << b;
  }
  EXPECT_EQ(Compute("round", {{2.5}}).toInt(), 2);
}

// An archive comes from anywhere: whatever its numbers are, the worker stays.
TEST(SizeArithmeticTest, WhatFitsNoIntegerIsAnError) {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
  EXPECT_THROW(Compute("_operator.floordiv", {{kMin}, {int64_t{-1}}}), c10::ValueError);
  EXPECT_THROW(Compute("_operator.floordiv", {{kMin}, {int64_t{0}}}), c10::ValueError);
  EXPECT_THROW(Compute("_operator.add", {{kMax}, {int64_t{1}}}), c10::ValueError);
  EXPECT_THROW(Compute("_operator.sub", {{kMin}, {int64_t{1}}}), c10::ValueError);
  EXPECT_THROW(Compute("_operator.mul", {{kMax}, {kMax}}), c10::ValueError);
  EXPECT_THROW(Compute("_operator.neg", {{kMin}}), c10::ValueError);
  EXPECT_THROW(Compute("_operator.pow", {{int64_t{2}}, {kMax}}), c10::ValueError);
  EXPECT_THROW(Compute("math.floor", {{1e30}}), c10::ValueError);
  EXPECT_THROW(Compute("math.ceil", {{std::nan("")}}), c10::ValueError);
}

}  // namespace
}  // namespace gpipe::worker
