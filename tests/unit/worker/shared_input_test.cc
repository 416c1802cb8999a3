// Products with weights that read the same value: a program's nodes, and what becomes of a CPU's gradients: nothing
// new.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/exported/value_names.h"
#include "tests/unit/worker/aten_nodes.h"
#include "worker/exported/graph_code.h"
#include "worker/exported/shared_inputs.h"

namespace gpipe::worker {
namespace {

using exported::Node;
using ::testing::ElementsAre;

class SharedInputsTest : public ::testing::Test {
 protected:
  SharedInputsTest() {
    Add("q", "linear.default", {{"input", Value("x")}, {"weight", Value("w")}});
    Add("other", "relu.default", {{"self", Value("x")}});
    Add("k", "addmm.default", {{"self", Value("b")}, {"mat1", Value("x")}, {"mat2", Value("w")}});
    Add("v", "linear.default", {{"input", Value("other")}, {"weight", Value("w")}});
  }

  void Add(const std::string& name, const std::string& target, std::vector<exported::NamedArgument> inputs) {
    nodes_.push_back(AtenNode(name, target, std::move(inputs)));
  }

  PlacedNodes Placed() const {
    PlacedNodes placed;
    for (size_t i = 0; i < nodes_.size(); ++i) placed.emplace_back(10 + i, &nodes_[i]);
    return placed;
  }

  // What each makes, and of what.
  std::vector<std::string> Found() const {
    std::deque<Node> made;
    std::vector<std::string> words;
    for (const auto& [place, node] : WithSharedInputs(Placed(), made)) {
      std::string& word =
          words.emplace_back(std::to_string(place) + " " + exported::ValuesMadeBy(*node).front() + " <");
      for (const std::string& name : exported::ValuesReadBy(*node)) word += " " + name;
    }
    return words;
  }

  std::vector<Node> nodes_;
};

TEST_F(SharedInputsTest, ProductsReadOneOfTheirOwn) {
  EXPECT_THAT(Found(), ElementsAre("10 x shared < x", "10 q < x shared w", "11 other < x", "12 k < b x shared w",
                                   "13 v < other w"));
}

TEST_F(SharedInputsTest, AreLeftWhereSomethingIsWrittenToInBetween) {
  nodes_[1].target = "torch.ops.aten.relu_.default";
  EXPECT_THAT(Found(), ElementsAre("10 q < x w", "11 other < x", "12 k < b x w", "13 v < other w"));
}

TEST_F(SharedInputsTest, AreSharedWhereSomethingIsWrittenToBeforeOrLater) {
  Add("written", "relu_.default", {{"self", Value("v")}});
  nodes_.insert(nodes_.begin(),
                {"before", "torch.ops.aten.relu_.default", {{"self", Value("b")}}, {{.names = {"before"}}}, "", ""});
  EXPECT_THAT(Found(), ElementsAre("10 before < b", "11 x shared < x", "11 q < x shared w", "12 other < x",
                                   "13 k < b x shared w", "14 v < other w", "15 written < v"));
}

TEST_F(SharedInputsTest, ComputeTheSame) {
  const at::Tensor x = at::randn({3, 4}).set_requires_grad(true), w = at::randn({4, 4}).set_requires_grad(true);
  const at::Tensor b = at::randn({4});
  const std::map<std::string, exported::TensorMeta> values;
  const auto code = GraphCode::Compile({Placed(), {"x", "w", "b"}, {Value("q"), Value("k"), Value("v")}, values}, {});
  ASSERT_TRUE(code.ok()) << code.status();
  const std::vector<c10::IValue> made = code->Run({}, {x, w, b});
  const std::vector<at::Tensor> expected = {at::linear(x, w), at::addmm(b, x, w), at::linear(at::relu(x), w)};
  at::Tensor sum = at::zeros({}), expected_sum = at::zeros({});
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(at::equal(made[i].toTensor(), expected[i]));
    sum = sum + made[i].toTensor().square().sum();
    expected_sum = expected_sum + expected[i].square().sum();
  }
  EXPECT_TRUE(at::allclose(torch::autograd::grad({sum}, {x})[0], torch::autograd::grad({expected_sum}, {x})[0]));
}

}  // namespace
}  // namespace gpipe::worker
