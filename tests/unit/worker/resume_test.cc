#include "worker/checkpoint/resume.h"

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
  WeightsTest() : folder_(TemporaryFolder::Create("resume_test").value()) {
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
    fetched_.clear();
    return LoadWeights(weights, plan_, state, [this](const std::string& path) {
      fetched_.push_back(path);
      return absl::StatusOr<std::filesystem::path>(folder_.path() / path);
    });
  }

  TemporaryFolder folder_;
  v1::Plan plan_;
  std::vector<std::string> fetched_;
};

TEST_F(WeightsTest, OneFileGivesAllTensors) {
  const at::Tensor first = Filled(0), tied = Filled(0);
  ASSERT_TRUE(Load("all.safetensors", {{"h.0.weight", 0, first}, {"wte.weight", 0, tied}}).ok());
  EXPECT_TRUE(at::equal(first, Filled(1)));
  EXPECT_TRUE(at::equal(tied, Filled(3)));
}

TEST_F(WeightsTest, OnlyShardsWithTensorsOfThisWorkerAreFetched) {
  const at::Tensor first = Filled(0), second = Filled(0);
  ASSERT_TRUE(Load("index.json", {{"h.0.weight", 0, first}}).ok());
  EXPECT_THAT(fetched_, ElementsAre("index.json", "1.safetensors"));
  ASSERT_TRUE(Load("index.json", {{"h.1.weight", 0, second}}).ok());
  EXPECT_THAT(fetched_, ElementsAre("index.json", "2.safetensors"));
  EXPECT_TRUE(at::equal(first, Filled(1)));
  EXPECT_TRUE(at::equal(second, Filled(2)));
}

TEST_F(WeightsTest, ATiedParameterIsFoundUnderItsOtherName) {
  const at::Tensor tied = Filled(0);
  ASSERT_TRUE(Load("index.json", {{"wte.weight", 0, tied}}).ok());
  EXPECT_TRUE(at::equal(tied, Filled(3)));
}

TEST_F(WeightsTest, WhatIsMissingOrUnfitIsNamed) {
  EXPECT_THAT(std::string(Load("index.json", {{"h.2.weight", 0, Filled(0)}}).message()), HasSubstr("'h.2.weight'"));
  const absl::Status unfit = Load("index.json", {{"h.1.weight", 0, at::zeros({3, 2})}});
  EXPECT_THAT(std::string(unfit.message()), HasSubstr("h.1.weight is Float [2, 3], the model's is Float [3, 2]"));
}

}  // namespace
}  // namespace gpipe::worker
