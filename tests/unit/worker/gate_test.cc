// Gated activations done as one, beside the operators that they are written with.
#include "worker/model/gate.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

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

using exported::Node;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(GateTest, IsWhatTheOperatorsDo) {
  const at::Tensor gate = at::randn({3, 5}).set_requires_grad(true), up = at::randn({5}).set_requires_grad(true);
  const std::vector<std::pair<Activation, at::Tensor>> cases = {{Activation::kSilu, at::silu(gate)},
                                                                {Activation::kGelu, at::gelu(gate)},
                                                                {Activation::kGeluTanh, at::gelu(gate, "tanh")}};
  for (const auto& [activation, activated] : cases) {
    const at::Tensor found = Gate(activation, gate, up), expected = activated * up;
    EXPECT_TRUE(at::equal(found, expected));
    const auto gradients = torch::autograd::grad({found.sum()}, {gate, up});
    const auto expected_gradients = torch::autograd::grad({expected.sum()}, {gate, up});
    for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(at::equal(gradients[i], expected_gradients[i]));
  }
}

// As torch.export has it, with what comes between in a language model.
class GatesTest : public ::testing::Test {
 protected:
  GatesTest() {
    values_["gate"].sizes = values_["x"].sizes = values_["up"].sizes = {int64_t{3}, int64_t{8}};
    Add("activated", "silu.default", {{"self", Value("gate")}});
    Add("up", "relu.default", {{"self", Value("x")}});
    Add("result", "mul.Tensor", {{"self", Value("activated")}, {"other", Value("up")}});
  }

  void Add(const std::string& name, const std::string& target, std::vector<exported::NamedArgument> inputs) {
    nodes_.push_back(AtenNode(name, target, std::move(inputs)));
  }

  std::vector<Fusion> Find(const std::set<std::string>& kept = {"result"}) const {
    std::vector<const Node*> nodes;
    for (const Node& node : nodes_) nodes.push_back(&node);
    return FindFusions(nodes, values_, kept);
  }

  at::Tensor Run(const at::Tensor& gate, const at::Tensor& x) const {
    GraphCode::Part part{{}, {"gate", "x"}, {Value("result")}, values_};
    for (size_t i = 0; i < nodes_.size(); ++i) part.nodes.emplace_back(i, &nodes_[i]);
    const auto code = GraphCode::Compile(part, {});
    EXPECT_TRUE(code.ok()) << code.status();
    return code->Run({}, {gate, x}).front().toTensor();
  }

  std::vector<Node> nodes_;
  std::map<std::string, exported::TensorMeta> values_;
};

TEST_F(GatesTest, AreFoundInEitherOrder) {
  const at::Tensor gate = at::randn({3, 8}), x = at::randn({3, 8});
  for (int order = 0; order < 2; ++order) {
    const std::vector<Fusion> found = Find();
    ASSERT_EQ(found.size(), 1u);
    EXPECT_THAT(found[0].nodes, ElementsAre(0, 2));
    EXPECT_THAT(found[0].values, ElementsAre("gate", "up"));
    EXPECT_EQ(found[0].kind, "gated silu");
    EXPECT_TRUE(at::equal(Run(gate, x), at::silu(gate) * at::relu(x)));
    std::swap(nodes_[2].inputs[0].argument, nodes_[2].inputs[1].argument);
  }
}

TEST_F(GatesTest, OfGeluAreOfItsApproximation) {
  nodes_[0].target = "torch.ops.aten.gelu.default";
  ASSERT_EQ(Find().size(), 1u);
  EXPECT_EQ(Find()[0].kind, "gated gelu");
  nodes_[0].inputs.push_back({"approximate", {std::string("tanh")}});
  ASSERT_EQ(Find().size(), 1u);
  EXPECT_EQ(Find()[0].kind, "gated gelu by tanh");
  const at::Tensor gate = at::randn({3, 8}), x = at::randn({3, 8});
  EXPECT_TRUE(at::equal(Run(gate, x), at::gelu(gate, "tanh") * at::relu(x)));
  nodes_[0].inputs.back().argument = {std::string("of tomorrow")};
  EXPECT_THAT(Find(), IsEmpty());
}

TEST_F(GatesTest, LeaveWhatElseIsUsed) {
  EXPECT_THAT(Find({"result", "activated"}), IsEmpty());
  Add("more", "neg.default", {{"self", Value("activated")}});
  EXPECT_THAT(Find(), IsEmpty());
}

TEST_F(GatesTest, LeaveNumbersAndWhatIsWrittenToMeanwhile) {
  const std::vector<Node> nodes = nodes_;
  nodes_[1].target = "torch.ops.aten.relu_.default";
  EXPECT_THAT(Find(), IsEmpty());
  nodes_ = nodes;
  values_.erase("up");  // Only tensors are told of.
  EXPECT_THAT(Find(), IsEmpty());
}

}  // namespace
}  // namespace gpipe::worker
