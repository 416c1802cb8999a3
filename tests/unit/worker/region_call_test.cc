#include "worker/exported/region_call.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>

#include "worker/exported/graph_code.h"

namespace gpipe::worker {
namespace {

using exported::Argument;
using exported::ArgumentList;
using exported::Graph;
using exported::Node;
using exported::ValueName;

std::shared_ptr<const Graph> HalfDropped() {
  auto graph = std::make_shared<Graph>();
  graph->inputs = {"y"};
  graph->nodes.push_back({"dropped",
                          "torch.ops.aten.dropout.default",
                          {{"input", {ValueName{"y"}}}, {"p", {0.5}}, {"train", {true}}},
                          {{.names = {"dropped"}}},
                          "",
                          ""});
  graph->outputs = {{ValueName{"dropped"}}};
  return graph;
}

// cond(chosen, half dropped, half dropped, (x,))
class ConditionTest : public ::testing::Test {
 protected:
  ConditionTest() {
    node_ = {"made",
             "torch.ops.higher_order.cond",
             {{"", {ValueName{"chosen"}}},
              {"", {HalfDropped()}},
              {"", {HalfDropped()}},
              {"", {ArgumentList{{ValueName{"x"}}}}}},
             {{.names = {"made"}}},
             "",
             ""};
  }

  at::Tensor Run(bool chosen) {
    const absl::StatusOr<GraphCode> code =
        GraphCode::Compile({{{0, &node_}}, {"chosen", "x"}, {{ValueName{"made"}}}, {}}, {.device = c10::kCPU});
    EXPECT_TRUE(code.ok()) << code.status();
    return code->Run({.training = true, .seed = 1}, {at::scalar_tensor(chosen, at::kBool), at::ones({100})})
        .front()
        .toTensor();
  }

  Node node_;
};

// What is kept by place, random numbers and statistics, is of one operator.
TEST_F(ConditionTest, OperatorsOfBothBranchesHavePlacesOfTheirOwn) {
  EXPECT_TRUE(at::equal(Run(true), Run(true)));
  EXPECT_TRUE(at::equal(Run(false), Run(false)));
  EXPECT_FALSE(at::equal(Run(true), Run(false)));
}

TEST_F(ConditionTest, ItsPlacesAreThoseOfAllNodesInIt) {
  Graph graph;
  graph.nodes = {node_, node_};
  EXPECT_EQ(CountPlaces(graph), 6);
  EXPECT_EQ(PlacesOf(graph, 10), (std::vector<uint64_t>{10, 13}));
}

}  // namespace
}  // namespace gpipe::worker
