// Rotary position embedding done as one, beside the operators that it is written with.
#include "worker/model/rotation.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/worker/aten_nodes.h"
#include "worker/exported/fusions.h"
#include "worker/exported/graph_code.h"

namespace gpipe::worker {
namespace {

using exported::ArgumentList;
using exported::Node;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

at::Tensor ByOperators(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const std::vector<at::Tensor> halves = x.chunk(2, -1);
  return x * cos + at::cat({-halves[1], halves[0]}, -1) * sin;
}

// Queries of two samples, three heads, five positions and eight channels, laid out as a projection leaves them.
struct Inputs {
  at::Tensor x = at::randn({2, 5, 3, 8}).transpose(1, 2).set_requires_grad(true);
  at::Tensor cos = at::randn({5, 8}), sin = at::randn({1, 1, 5, 8});
};

TEST(RotationTest, IsWhatTheOperatorsDo) {
  at::manual_seed(1);
  const Inputs in;
  const at::Tensor expected = ByOperators(in.x, in.cos, in.sin), gradient = at::randn_like(expected);
  const at::Tensor expected_gradient = torch::autograd::grad({expected}, {in.x}, {gradient})[0];
  const at::Tensor found = Rotate(in.x, in.cos, in.sin);
  EXPECT_TRUE(at::allclose(found, expected, 1e-6, 1e-6));
  EXPECT_EQ(found.strides(), expected.strides());
  EXPECT_TRUE(at::allclose(torch::autograd::grad({found}, {in.x}, {gradient})[0], expected_gradient, 1e-6, 1e-6));
}

// Of which the operators' own gradients are those that are right.
TEST(RotationTest, TurnsByAnglesThatAreTrained) {
  Inputs in;
  in.cos.set_requires_grad(true);
  const at::Tensor found = Rotate(in.x, in.cos, in.sin), expected = ByOperators(in.x, in.cos, in.sin);
  EXPECT_TRUE(at::equal(torch::autograd::grad({found.sum()}, {in.cos})[0],
                        torch::autograd::grad({expected.sum()}, {in.cos})[0]));
}

TEST(RotationTest, TakesAnglesOfAnotherTypeOrSize) {
  const at::Tensor x = at::randn({5, 8}), cos = at::randn({2, 5, 8}), sin = at::randn({5, 1});
  EXPECT_TRUE(at::equal(Rotate(x, cos, sin), ByOperators(x, cos, sin)));
  EXPECT_TRUE(at::equal(Rotate(x.to(at::kBFloat16), cos[0], cos[1]), ByOperators(x.to(at::kBFloat16), cos[0], cos[1])));
}

// As torch.export has it.
class RotationsTest : public ::testing::Test {
 protected:
  RotationsTest() {
    values_["cos"].sizes = values_["sin"].sizes = {int64_t{5}, int64_t{8}};
    values_["x"].sizes = {int64_t{2}, int64_t{3}, int64_t{5}, int64_t{8}};
    Add("first", "slice.Tensor",
        {{"self", Value("x")}, {"dim", {int64_t{3}}}, {"start", {int64_t{0}}}, {"end", {int64_t{4}}}});
    Add("second", "slice.Tensor",
        {{"self", Value("x")},
         {"dim", {int64_t{3}}},
         {"start", {int64_t{4}}},
         {"end", {int64_t{9223372036854775807}}}});
    Add("straight", "mul.Tensor", {{"self", Value("x")}, {"other", Value("cos")}});
    Add("negative", "neg.default", {{"self", Value("second")}});
    Add("turned", "cat.default",
        {{"tensors", {ArgumentList{Value("negative"), Value("first")}}}, {"dim", {int64_t{-1}}}});
    Add("by_sin", "mul.Tensor", {{"self", Value("turned")}, {"other", Value("sin")}});
    Add("result", "add.Tensor", {{"self", Value("straight")}, {"other", Value("by_sin")}});
  }

  void Add(const std::string& name, const std::string& target, std::vector<exported::NamedArgument> inputs) {
    nodes_.push_back(AtenNode(name, target, std::move(inputs)));
  }

  static Node HalvesOf(std::string first, std::string second) {
    return {"halves",
            "torch.ops.aten.chunk.default",
            {{"self", Value("x")}, {"chunks", {int64_t{2}}}, {"dim", {int64_t{-1}}}},
            {{.is_list = true, .names = {std::move(first), std::move(second)}}},
            "",
            ""};
  }

  std::vector<Fusion> Find(const std::set<std::string>& kept = {"result"}) const {
    std::vector<const Node*> nodes;
    for (const Node& node : nodes_) nodes.push_back(&node);
    return FindFusions(nodes, values_, kept);
  }

  at::Tensor Run(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) const {
    GraphCode::Part part{{}, {"x", "cos", "sin"}, {Value("result")}, values_};
    for (size_t i = 0; i < nodes_.size(); ++i) part.nodes.emplace_back(i, &nodes_[i]);
    const auto code = GraphCode::Compile(part, {});
    EXPECT_TRUE(code.ok()) << code.status();
    return code->Run({}, {x, cos, sin}).front().toTensor();
  }

  std::vector<Node> nodes_;
  std::map<std::string, exported::TensorMeta> values_;
};

TEST_F(RotationsTest, AreFoundAndDoneAsOne) {
  const std::vector<Fusion> found = Find();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].nodes, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  const Inputs in;
  const at::Tensor result = Run(in.x, in.cos, in.sin);
  EXPECT_EQ(result.grad_fn()->name().find("Add"), std::string::npos);
  EXPECT_TRUE(at::allclose(result, ByOperators(in.x, in.cos, in.sin), 1e-6, 1e-6));
}

TEST_F(RotationsTest, AreFoundWithChunksAndFactorsInAnyOrder) {
  nodes_[0] = HalvesOf("first", "second");
  nodes_.erase(nodes_.begin() + 1);
  std::swap(nodes_[1].inputs[0].argument, nodes_[1].inputs[1].argument);
  std::swap(nodes_[5].inputs[0].argument, nodes_[5].inputs[1].argument);
  ASSERT_EQ(Find().size(), 1u);
  const Inputs in;
  EXPECT_TRUE(at::allclose(Run(in.x, in.cos, in.sin), ByOperators(in.x, in.cos, in.sin), 1e-6, 1e-6));
}

TEST_F(RotationsTest, LeaveWhatElseIsUsed) {
  EXPECT_THAT(Find({"result", "turned"}), IsEmpty());
  Add("more", "neg.default", {{"self", Value("first")}});
  EXPECT_THAT(Find(), IsEmpty());
}

// The first half of one pair and the second one of another, whose first is used for something else.
TEST_F(RotationsTest, LeaveAPairOfWhichAHalfIsUsed) {
  nodes_[1] = HalvesOf("other", "second");
  EXPECT_EQ(Find().size(), 1u);
  Add("more", "neg.default", {{"self", Value("other")}});
  EXPECT_THAT(Find(), IsEmpty());
}

TEST_F(RotationsTest, LeaveWhatTurnsAnotherWay) {
  std::vector<Node> nodes = nodes_;
  nodes_[1].inputs[2].argument = {int64_t{3}};  // Not the second half.
  EXPECT_THAT(Find(), IsEmpty());
  nodes_ = nodes;
  std::swap(std::get<ArgumentList>(nodes_[4].inputs[0].argument.value)[0],
            std::get<ArgumentList>(nodes_[4].inputs[0].argument.value)[1]);
  EXPECT_THAT(Find(), IsEmpty());
  nodes_ = nodes;
  nodes_[6].inputs.push_back({"alpha", {int64_t{2}}});
  EXPECT_THAT(Find(), IsEmpty());
  nodes_ = nodes;
  nodes_[4].inputs[1].argument = {int64_t{2}};  // Joined in another dimension.
  EXPECT_THAT(Find(), IsEmpty());
}

TEST_F(RotationsTest, LeaveNumbersAndWhatHasNoResult) {
  std::vector<Node> nodes = nodes_;
  nodes_.back().outputs.clear();
  EXPECT_THAT(Find(), IsEmpty());
  nodes_ = nodes;
  values_.erase("sin");  // Only tensors are told of.
  EXPECT_THAT(Find(), IsEmpty());
}

TEST_F(RotationsTest, LeaveWhatIsWrittenToMeanwhile) {
  Node write = {"write",
                "torch.ops.aten.add_.Tensor",
                {{"self", Value("x")}, {"other", Value("cos")}},
                {{.names = {"write"}}},
                "",
                ""};
  nodes_.insert(nodes_.begin() + 3, write);
  EXPECT_THAT(Find(), IsEmpty());
}

}  // namespace
}  // namespace gpipe::worker
