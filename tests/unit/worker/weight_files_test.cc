#include "worker/checkpoint/weight_files.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kIndex[] = R"({"weight_map": {"h.0.weight": "1.safetensors", "h.1.weight": "2.safetensors",
                                            "head.weight": "2.safetensors"}})";

// Weights of a model with two layers and a tied parameter: one file, and two with an index.
class WeightsTest : public ::testing::Test {
 protected:
  WeightsTest() : folder_(TemporaryFolder::Create("weight_files_test").value()) {
    Write("1.safetensors", {{"h.0.weight", 0, Filled(1)}});
    Write("2.safetensors", {{"h.1.weight", 0, Filled(2)}, {"head.weight", 0, Filled(3)}});
    Write("all.safetensors",
          {{"h.0.weight", 0, Filled(1)}, {"h.1.weight", 0, Filled(2)}, {"wte.weight", 0, Filled(3)}});
    EXPECT_TRUE(WriteFileAtomically(folder_.path() / "index.json", kIndex).ok());
    v1::ModelTensor& tied = *plan_.add_layers()->add_tensors();
    tied.set_name("wte.weight");
    tied.add_aliases("head.weight");
  }

  static at::Tensor Filled(double value) { return at::full({2, 3}, value, at::kFloat); }
  void Write(const std::string& name, const std::vector<NamedTensor>& tensors) {
    EXPECT_TRUE(WriteTensorFile(folder_.path() / name, tensors).ok());
  }

  absl::Status Load(const std::string& weights, const std::vector<NamedTensor>& state) {
    opened_.clear();
    bytes_read_ = 0;
    model_.set_weights(weights);
    TensorLoader loader(at::kCPU);
    return LoadWeights(model_, plan_, state, [this](const std::string& path) { return Open(path); }, loader);
  }

  absl::StatusOr<RangedFile> Open(const std::string& path) {
    opened_.push_back(path);
    const std::string content = ReadFile(folder_.path() / path).value();
    return RangedFile{content.size(), [this, content](uint64_t offset, absl::Span<char> data) {
                        bytes_read_ += data.size();
                        content.copy(data.data(), data.size(), offset);
                        return absl::OkStatus();
                      }};
  }

  TemporaryFolder folder_;
  v1::Model model_;
  v1::Plan plan_;
  std::vector<std::string> opened_;
  uint64_t bytes_read_ = 0;
};

TEST_F(WeightsTest, OneFileGivesAllTensors) {
  const at::Tensor first = Filled(0), tied = Filled(0);
  ASSERT_TRUE(Load("all.safetensors", {{"h.0.weight", 0, first}, {"wte.weight", 0, tied}}).ok());
  EXPECT_TRUE(at::equal(first, Filled(1)));
  EXPECT_TRUE(at::equal(tied, Filled(3)));
}

TEST_F(WeightsTest, OnlyShardsWithTensorsOfThisWorkerAreOpened) {
  const at::Tensor first = Filled(0), second = Filled(0);
  ASSERT_TRUE(Load("index.json", {{"h.0.weight", 0, first}}).ok());
  EXPECT_THAT(opened_, ElementsAre("index.json", "1.safetensors"));
  ASSERT_TRUE(Load("index.json", {{"h.1.weight", 0, second}}).ok());
  EXPECT_THAT(opened_, ElementsAre("index.json", "2.safetensors"));
  EXPECT_TRUE(at::equal(first, Filled(1)));
  EXPECT_TRUE(at::equal(second, Filled(2)));
}

TEST_F(WeightsTest, OfAFileOnlyTheHeaderAndThisWorkersTensorsAreRead) {
  const at::Tensor large = at::arange(1 << 16, at::kFloat), own = at::zeros({4}, at::kFloat);
  Write("large.safetensors", {{"large", 0, large}, {"own", 0, at::arange(4, at::kFloat)}});
  ASSERT_TRUE(Load("large.safetensors", {{"own", 0, own}}).ok());
  EXPECT_TRUE(at::equal(own, at::arange(4, at::kFloat)));
  EXPECT_LT(bytes_read_, 1000u);
}

TEST_F(WeightsTest, ATiedParameterIsFoundUnderItsOtherName) {
  const at::Tensor tied = Filled(0);
  ASSERT_TRUE(Load("index.json", {{"wte.weight", 0, tied}}).ok());
  EXPECT_TRUE(at::equal(tied, Filled(3)));
}

TEST_F(WeightsTest, WhatIsMissingOrUnfitIsNamed) {
  EXPECT_THAT(std::string(Load("index.json", {{"h.2.weight", 0, Filled(0)}}).message()), HasSubstr("'h.2.weight'"));
  const absl::Status unfit = Load("index.json", {{"h.1.weight", 0, at::zeros({3, 2})}});
  EXPECT_THAT(std::string(unfit.message()),
              HasSubstr("2.safetensors: h.1.weight is F32 [2, 3], the model's is F32 [3, 2]"));
}

TEST_F(WeightsTest, FloatingTypesAreConverted) {
  const at::Tensor exact = at::randn({5, 7});
  for (const auto stored : {at::kBFloat16, at::kHalf, at::kFloat, at::kDouble}) {
    Write("typed.safetensors", {{"w", 0, exact.to(stored)}});
    for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat, at::kDouble}) {
      const at::Tensor live = at::zeros({5, 7}, type);
      ASSERT_TRUE(Load("typed.safetensors", {{"w", 0, live}}).ok());
      EXPECT_TRUE(at::equal(live, exact.to(stored).to(type))) << stored << " to " << type;
    }
  }
}

TEST_F(WeightsTest, OtherTypesAreNot) {
  Write("typed.safetensors", {{"w", 0, at::ones({3}, at::kLong)}});
  EXPECT_THAT(std::string(Load("typed.safetensors", {{"w", 0, at::zeros({3})}}).message()),
              HasSubstr("w is I64 [3], the model's is F32 [3]"));
}

TEST_F(WeightsTest, WhatWrappersAddToNamesDoesNotMatter) {
  Write("wrapped.safetensors", {{"module._orig_mod.h.0.weight", 0, Filled(1)}, {"h.1._orig_mod.weight", 0, Filled(2)}});
  const at::Tensor first = Filled(0), second = Filled(0);
  ASSERT_TRUE(Load("wrapped.safetensors", {{"h.0.weight", 0, first}, {"h.1.weight", 0, second}}).ok());
  EXPECT_TRUE(at::equal(first, Filled(1)));
  EXPECT_TRUE(at::equal(second, Filled(2)));
}

TEST_F(WeightsTest, AModelMayWrapTheOneThatTheFilesAreOf) {
  model_.set_weights_prefix("encoder.");
  const at::Tensor first = Filled(0);
  ASSERT_TRUE(Load("all.safetensors", {{"encoder.h.0.weight", 0, first}}).ok());
  EXPECT_TRUE(at::equal(first, Filled(1)));
}

TEST_F(WeightsTest, ATornFileIsRefused) {
  ASSERT_TRUE(WriteFileAtomically(folder_.path() / "torn.safetensors", "abc").ok());
  EXPECT_THAT(std::string(Load("torn.safetensors", {{"w", 0, Filled(0)}}).message()),
              HasSubstr("torn.safetensors: not a good safetensors file: it is shorter than 8 bytes"));
}

}  // namespace
}  // namespace gpipe::worker
