#include "worker/exported/result_layout.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace gpipe::worker
