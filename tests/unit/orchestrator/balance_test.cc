#include "orchestrator/planning/balance.h"

#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;

v1::JobSpec WithoutBalance(const char* yaml) {
  v1::JobSpec spec = ParseSpec(yaml);
  spec.mutable_pipeline()->clear_balance();
  return spec;
}

LayerInfos Timed(LayerInfos layers, const std::vector<int64_t>& forward_nanos) {
  for (size_t i = 0; i < layers.size(); ++i) layers[i].set_forward_nanos(forward_nanos[i]);
  return layers;
}

// Two workers for kTrainYaml, or for kSkipYaml's nine layers.
class BalanceTest : public testing::Test {
 protected:
  PlanRequest Request(const LayerInfos& first, const LayerInfos& second) const {
    return {.spec = spec_, .facts = facts_, .layers = first, .workers = 2, .profiles = {&first, &second}};
  }
  void UseSkips() {
    spec_ = WithoutBalance(kSkipYaml);
    facts_ = Facts(100, {32});
    layers_ = LayersFor(spec_.model(), {32});
  }

  v1::JobSpec spec_ = WithoutBalance(kTrainYaml);
  InputFacts facts_ = Facts(20, {4});
  LayerInfos layers_ = LayersFor(spec_.model(), {4});
};

TEST_F(BalanceTest, TheSpecsOwnBalanceIsTaken) {
  const v1::JobSpec spec = ParseSpec(kTrainYaml);
  EXPECT_THAT(*Balance({.spec = spec, .facts = facts_, .layers = layers_, .workers = 1}), ElementsAre(2, 1));
}

TEST_F(BalanceTest, AnAutomaticCutBalancesMeasuredTimes) {
  const LayerInfos light_end = Timed(layers_, {1000, 1000, 10}), heavy_end = Timed(layers_, {1000, 1000, 10000});
  EXPECT_THAT(*Balance(Request(light_end, light_end)), ElementsAre(1, 2));
  EXPECT_THAT(*Balance(Request(heavy_end, heavy_end)), ElementsAre(2, 1));
}

TEST_F(BalanceTest, AFasterWorkerGetsMoreLayersAndThePlanItsTimes) {
  UseSkips();
  const LayerInfos slow = Timed(layers_, std::vector<int64_t>(9, 1000));
  const LayerInfos fast = Timed(layers_, std::vector<int64_t>(9, 500));
  EXPECT_THAT(*Balance(Request(fast, slow)), ElementsAre(6, 3));
  PlanRequest request = Request(slow, fast);
  request.balance = *Balance(request);
  EXPECT_THAT(request.balance, ElementsAre(3, 6));
  const v1::Plan plan = *MakePlan(request);
  EXPECT_EQ(plan.layers(2).forward_nanos(), 1000);
  EXPECT_EQ(plan.layers(3).forward_nanos(), 500);
}

TEST_F(BalanceTest, ASlowLinkMovesTheCutOutOfASkip) {
  UseSkips();
  const LayerInfos even = Timed(layers_, std::vector<int64_t>(9, 1000));
  PlanRequest request = Request(even, even);
  EXPECT_THAT(*Balance(request), ElementsAre(5, 4));
  // A value of 7 samples of 64 numbers takes 5 us; within the skip there are two of them.
  v1::LinkSpeed link;
  link.set_bytes_per_second(7 * 64 * 4 / 5e-6);
  request.links = {link};
  EXPECT_THAT(*Balance(request), ElementsAre(7, 2));
}

TEST_F(BalanceTest, TheMemoryOfEachWorkerIsALimit) {
  const LayerInfos even = Timed(layers_, {1000, 1000, 1000});
  PlanRequest request = Request(even, even);
  // Weights and gradients: 256 and 192 bytes. Inputs of 4 micro-batches of 2 samples: 128, then 256 behind each layer.
  request.memory_bytes = {400, 448};
  EXPECT_TRUE(Balance(request).ok());
  request.memory_bytes = {400, 447};
  EXPECT_TRUE(absl::IsResourceExhausted(Balance(request).status()));
  request.memory_bytes = {383, 0};
  EXPECT_TRUE(absl::IsResourceExhausted(Balance(request).status()));
}

TEST_F(BalanceTest, WhatIsSavedCountsOncePerMicroBatchThatIsKept) {
  LayerInfos even = Timed(layers_, {1000, 1000, 1000});
  for (v1::LayerInfo& layer : even) layer.set_activation_bytes_per_sample(1000);
  PlanRequest request = Request(even, even);
  request.memory_bytes = {5000, 5000};
  EXPECT_TRUE(Balance(request).ok());  // 2 layers of 2 samples, and the rest.
  spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_NEVER);
  EXPECT_TRUE(absl::IsResourceExhausted(Balance(request).status()));
}

}  // namespace
}  // namespace gpipe::orchestrator
