#include "common/plan/shared_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// One layer a stage, with these tensors.
v1::Plan PlanOf(const std::vector<std::vector<std::string>>& tensors, const std::vector<int>& workers) {
  v1::Plan plan;
  for (size_t i = 0; i < tensors.size(); ++i) {
    v1::LayerInfo& layer = *plan.add_layers();
    for (const std::string& name : tensors[i]) {
      v1::ModelTensor& tensor = *layer.add_tensors();
      tensor.set_name(name);
      tensor.set_trainable(name != "buffer");
    }
    v1::Stage& stage = *plan.add_stages();
    stage.set_first_layer(static_cast<int>(i));
    stage.set_layer_count(1);
    plan.add_stage_worker(workers[i]);
  }
  return plan;
}

TEST(SharedTensorsTest, NamesTheWorkersThatHaveACopy) {
  const v1::Plan plan = PlanOf({{"a", "tied"}, {"b"}, {"tied", "c"}}, {0, 1, 2});
  const std::vector<SharedTensor> shared = SharedTensors(plan);
  ASSERT_EQ(shared.size(), 1u);
  EXPECT_EQ(shared[0].tensor->name(), "tied");
  EXPECT_THAT(shared[0].workers, ElementsAre(0, 2));
  EXPECT_TRUE(SharesGradients(plan));
}

TEST(SharedTensorsTest, StagesOfOneWorkerHaveOneCopy) {
  EXPECT_THAT(SharedTensors(PlanOf({{"tied"}, {"tied"}}, {0, 0})), IsEmpty());
}

TEST(SharedTensorsTest, ABufferHasNoGradient) {
  const v1::Plan plan = PlanOf({{"buffer"}, {"buffer"}}, {0, 1});
  EXPECT_EQ(SharedTensors(plan).size(), 1u);
  EXPECT_FALSE(SharesGradients(plan));
}

}  // namespace
}  // namespace gpipe
