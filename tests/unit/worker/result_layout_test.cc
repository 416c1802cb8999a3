#include "worker/exported/result_layout.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "worker/exported/exported_strides.h"
#include "worker/exported/graph_code.h"

namespace gpipe::worker {
namespace {

using exported::Argument;
using exported::Node;
using exported::ValueName;
using ::testing::ElementsAre;
using ::testing::Pair;

// As attention over (2, 3, 4) where the middle dimension came first in memory when the program was exported, and what
// is made of it needs that: its rows, one after the other.
class ResultLayoutTest : public ::testing::Test {
 protected:
  ResultLayoutTest() {
    const auto self = [](std::string name) { return exported::NamedArgument{"self", {ValueName{std::move(name)}}}; };
    nodes_.push_back({"made", "torch.ops.aten.sigmoid.default", {self("x")}, {{.names = {"made"}}}, "", ""});
    nodes_.push_back({"turned",
                      "torch.ops.aten.transpose.int",
                      {self("made"), {"dim0", {int64_t{0}}}, {"dim1", {int64_t{1}}}},
                      {{.names = {"turned"}}},
                      "",
                      ""});
    nodes_.push_back({"rows",
                      "torch.ops.aten.view.default",
                      {self("turned"), {"size", {exported::ArgumentList{{int64_t{6}}, {int64_t{4}}}}}},
                      {{.names = {"rows"}}},
                      "",
                      ""});
    for (size_t i = 0; i < nodes_.size(); ++i) placed_.emplace_back(i, &nodes_[i]);
    values_["made"] = {.sizes = {int64_t{2}, int64_t{3}, int64_t{4}}, .strides = {int64_t{4}, int64_t{8}, int64_t{1}}};
  }

  std::vector<Node> nodes_;
  std::vector<std::pair<uint64_t, const Node*>> placed_;
  std::map<std::string, exported::TensorMeta> values_;
};

TEST_F(ResultLayoutTest, WhatIsViewedHasTheLayoutThatItWasExportedWith) {
  EXPECT_THAT(ResultLayouts(placed_, values_, {}), ElementsAre(Pair("made", ElementsAre(1, 0, 2))));
}

TEST_F(ResultLayoutTest, WhatComesFromElsewhereHasTheLayoutThatItHas) {
  placed_.erase(placed_.begin());
  EXPECT_TRUE(ResultLayouts(placed_, values_, {}).empty());
}

TEST_F(ResultLayoutTest, AViewIsPossibleWhereverTheProgramRuns) {
  const absl::StatusOr<GraphCode> code =
      GraphCode::Compile({placed_, {"x"}, {{ValueName{"rows"}}}, values_}, {.device = c10::kCPU});
  ASSERT_TRUE(code.ok()) << code.status();
  const at::Tensor x = at::rand({2, 3, 4}).requires_grad_();  // As another device would lay the result out.
  const at::Tensor rows = code->Run({.training = true}, {x}).front().toTensor();
  EXPECT_TRUE(at::equal(rows, x.sigmoid().transpose(0, 1).reshape({6, 4})));
  rows.sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), (x.sigmoid() * (1 - x.sigmoid())).detach()));
}

// With small sizes nothing would be left of an image behind a convolution of patches.
TEST_F(ResultLayoutTest, SizesThatAreMadeOfSymbolsHaveSomeExtent) {
  const std::string batch = "Symbol('s1', positive=True, integer=True)",
                    side = "Symbol('s2', positive=True, integer=True)";
  exported::Program program;
  program.user_inputs.push_back({"image", "image", {.sizes = {batch, int64_t{3}, side, side}, .strides = {}}});
  const std::string patches = absl::StrCat("FloorDiv(", side, ", Integer(16))");
  const auto times = [](const std::string& a, const std::string& b) { return absl::StrCat("Mul(", a, ", ", b, ")"); };
  const std::string area = times(patches, patches);
  values_["made"] = {.sizes = {batch, int64_t{8}, patches, patches},
                     .strides = {times("Integer(8)", area), area, patches, int64_t{1}}};
  EXPECT_THAT(ResultLayouts(placed_, values_, AnySizes(program)), ElementsAre(Pair("made", ::testing::IsEmpty())));
  values_["made"] = {.sizes = {batch, int64_t{8}, patches, patches},
                     .strides = {times("Integer(8)", area), int64_t{1}, times("Integer(8)", patches), int64_t{8}}};
  EXPECT_THAT(ResultLayouts(placed_, values_, AnySizes(program)), ElementsAre(Pair("made", ElementsAre(0, 2, 3, 1))));
}

TEST_F(ResultLayoutTest, WhatIsNotDenseOrHasNoExtentIsLeftAsItIs) {
  values_["made"] = {.sizes = {int64_t{2}, int64_t{3}, int64_t{4}}, .strides = {int64_t{4}, int64_t{0}, int64_t{1}}};
  EXPECT_TRUE(ResultLayouts(placed_, values_, {}).empty());
  values_["made"] = {.sizes = {int64_t{2}, int64_t{0}, int64_t{4}}, .strides = {int64_t{4}, int64_t{4}, int64_t{1}}};
  EXPECT_TRUE(ResultLayouts(placed_, values_, {}).empty());
}

// A region with some of the nodes.
Node NoGrad(std::vector<Node> nodes, const std::string& input, const std::string& output) {
  auto graph = std::make_shared<exported::Graph>();
  graph->inputs = {input};
  graph->nodes = std::move(nodes);
  graph->outputs = {{ValueName{output}}};
  return {"region",
          "torch.ops.higher_order.wrap_with_set_grad_enabled",
          {{"", {false}}, {"", {std::shared_ptr<const exported::Graph>(graph)}}, {"", {ValueName{input}}}},
          {{.names = {output}}},
          "",
          ""};
}

TEST_F(ResultLayoutTest, ViewsAreFollowedIntoRegionsAndOutOfThem) {
  const Node inside = NoGrad({nodes_[0]}, "x", "made"), outside = NoGrad({nodes_[1], nodes_[2]}, "made", "rows");
  const at::Tensor x = at::rand({2, 3, 4});
  for (const std::vector<const Node*>& nodes :
       {std::vector<const Node*>{&inside, &nodes_[1], &nodes_[2]}, std::vector<const Node*>{&nodes_[0], &outside}}) {
    placed_.clear();
    for (const Node* node : nodes) placed_.emplace_back(2 * placed_.size(), node);
    EXPECT_THAT(ResultLayouts(placed_, values_, {}), ElementsAre(Pair("made", ElementsAre(1, 0, 2))));
    const absl::StatusOr<GraphCode> code =
        GraphCode::Compile({placed_, {"x"}, {{ValueName{"rows"}}}, values_}, {.device = c10::kCPU});
    ASSERT_TRUE(code.ok()) << code.status();
    const at::Tensor rows = code->Run({.training = true}, {x}).front().toTensor();
    EXPECT_TRUE(at::equal(rows, x.sigmoid().transpose(0, 1).reshape({6, 4})));
  }
}

}  // namespace
}  // namespace gpipe::worker
