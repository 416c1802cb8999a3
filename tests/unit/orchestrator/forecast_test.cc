#include "orchestrator/planning/forecast.h"

#include "orchestrator/planning/planner.h"
#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {
namespace {

// Layers of 1 ms forward and 2 ms backward that keep 100 bytes of a sample.
LayerInfos Measured(LayerInfos layers) {
  for (v1::LayerInfo& layer : layers) {
    layer.set_forward_nanos(1'000'000);
    layer.set_backward_nanos(2'000'000);
    layer.set_activation_bytes_per_sample(100);
  }
  return layers;
}

v1::LinkSpeed Link(double latency_seconds, double bytes_per_second) {
  v1::LinkSpeed link;
  link.set_latency_seconds(latency_seconds);
  link.set_bytes_per_second(bytes_per_second);
  return link;
}

// kTrainYaml: two stages, of two layers and of one; 4 micro-batches of 2 samples.
class ForecastTest : public testing::Test {
 protected:
  ForecastTest() { spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_NEVER); }

  v1::Plan Plan(const LayerInfos& layers) const {
    const auto& balance = spec_.pipeline().balance();
    PlanRequest request{.spec = spec_, .facts = facts_, .layers = layers};
    request.balance = {balance.begin(), balance.end()};
    request.workers = balance.size();
    return *MakePlan(request);
  }
  v1::Forecast Forecast(const std::vector<v1::LinkSpeed>& links = {}, bool on_gpus = false) const {
    return *MakeForecast(spec_, Plan(layers_), links, on_gpus);
  }

  v1::JobSpec spec_ = ParseSpec(kTrainYaml);
  InputFacts facts_ = Facts(20, {4});
  LayerInfos layers_ = Measured(LayersFor(spec_.model(), {4}));
};

TEST_F(ForecastTest, NeedsMeasuredLayers) {
  EXPECT_TRUE(IsMeasured(Plan(layers_)));
  EXPECT_FALSE(IsMeasured(Plan(LayersFor(spec_.model(), {4}))));
}

TEST_F(ForecastTest, TimesAreThoseOfTheSimulation) {
  const v1::Forecast forecast = Forecast();
  // Stage 0 has done its forwards after 8 ms, stage 1 after 9 and its first backward after 11; then 4 backwards of 4.
  EXPECT_NEAR(forecast.step_seconds(), 0.027, 1e-9);
  EXPECT_NEAR(forecast.bubble_share(), 1 - (24 + 12) / (2 * 27.0), 1e-9);
  ASSERT_EQ(forecast.stages_size(), 2);
  EXPECT_NEAR(forecast.stages(0).busy_share(), 24 / 27.0, 1e-9);
  EXPECT_NEAR(forecast.stages(1).busy_share(), 12 / 27.0, 1e-9);
  EXPECT_NEAR(forecast.stages(0).forward_seconds(), 0.002, 1e-9);
  EXPECT_NEAR(forecast.stages(0).backward_seconds(), 0.004, 1e-9);
  EXPECT_EQ(forecast.stages(0).recompute_seconds(), 0);
  EXPECT_EQ(forecast.links_size(), 0);
}

TEST_F(ForecastTest, BytesAreStateWhatIsSavedAndWhatIsSent) {
  const v1::Forecast forecast = Forecast();
  EXPECT_EQ(forecast.stages(0).state_bytes(), 2 * 128);  // With gradients.
  EXPECT_EQ(forecast.stages(1).state_bytes(), 2 * 96);
  // Of 4 micro-batches of 2 samples: inputs of 4 and of 8 numbers, and the inside of 2 layers and of 1.
  EXPECT_EQ(forecast.stages(0).peak_saved_bytes(), 4 * 2 * (4 * 4 + 2 * 100));
  EXPECT_EQ(forecast.stages(1).peak_saved_bytes(), 4 * 2 * (8 * 4 + 100));
  EXPECT_EQ(forecast.stages(0).sent_bytes(), 2 * 8 * 4);  // The value, and its gradient back.
  EXPECT_EQ(forecast.stages(1).sent_bytes(), 2 * 8 * 4);
}

v1::ValueMemory Memory(const std::string& name, int64_t bytes, bool kept, const std::string& within = "") {
  v1::ValueMemory memory;
  memory.set_name(name);
  memory.set_bytes_per_sample(bytes);
  memory.set_kept(kept);
  memory.set_within(within);
  return memory;
}

// `layer.1` lies in the memory of `layer.0`, which the last layer keeps, too: of another stage's it has a copy.
TEST_F(ForecastTest, WhatSeveralKeepIsThereOnce) {
  *layers_[0].add_value_memory() = Memory("layer.0", 32, true);
  *layers_[1].add_value_memory() = Memory("layer.0", 32, true);
  *layers_[1].add_value_memory() = Memory("layer.1", 0, false, "layer.0");
  *layers_[2].add_value_memory() = Memory("layer.1", 32, true);
  *layers_[2].add_value_memory() = Memory("layer.2", 12, false);
  const v1::Forecast forecast = Forecast();
  EXPECT_EQ(forecast.stages(0).peak_saved_bytes(), 4 * 2 * (4 * 4 + 2 * 100 + 32));
  EXPECT_EQ(forecast.stages(1).peak_saved_bytes(), 4 * 2 * (8 * 4 + 100));
}

TEST_F(ForecastTest, AStageNeedsRoomForTheLayerThatNeedsMost) {
  layers_[0].set_working_bytes_per_sample(7);
  layers_[1].set_working_bytes_per_sample(50);
  const v1::Forecast forecast = Forecast();
  EXPECT_EQ(forecast.stages(0).working_bytes(), 2 * 50);
  EXPECT_EQ(forecast.stages(1).working_bytes(), 0);
}

TEST_F(ForecastTest, GraphsHavePlacesOfTheirOwnForWhatCrosses) {
  const v1::Forecast forecast = Forecast({}, /*on_gpus=*/true);
  constexpr int64_t kValue = 2 * 8 * 4;
  EXPECT_EQ(forecast.stages(0).working_bytes(), 4 * 2 * kValue) << "of four micro-batches the value and its gradient";
  EXPECT_EQ(forecast.stages(1).working_bytes(), 4 * kValue) << "the gradient: the value is saved";
  spec_.mutable_pipeline()->set_capture(v1::CAPTURE_NEVER);
  EXPECT_EQ(Forecast({}, /*on_gpus=*/true).stages(0).working_bytes(), 0);
}

TEST_F(ForecastTest, RecomputingTakesTimeAndSavesMemory) {
  spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_ALWAYS);
  const v1::Forecast forecast = Forecast();
  EXPECT_NEAR(forecast.stages(0).recompute_seconds(), 0.002, 1e-9);
  EXPECT_GT(forecast.step_seconds(), 0.027);
  EXPECT_EQ(forecast.stages(0).peak_saved_bytes(), 4 * 2 * 4 * 4 + 2 * 2 * 100);
}

TEST_F(ForecastTest, ValuesAndGradientsTakeTheirLinksTime) {
  // 1 ms and 64 bytes at 64,000 a second: 2 ms there for the last forward, 2 ms back from the first backward.
  const v1::Forecast forecast = Forecast({Link(0.001, 64'000)});
  EXPECT_NEAR(forecast.step_seconds(), 0.031, 1e-9);
  EXPECT_EQ(forecast.links_size(), 1);
}

TEST_F(ForecastTest, AFrozenStageHasNoBackward) {
  layers_[0].set_trainable_count(0);
  for (int i : {0, 1}) layers_[i].mutable_makes(0)->set_requires_grad(false);
  const v1::Forecast forecast = Forecast();
  EXPECT_EQ(forecast.stages(0).backward_seconds(), 0);
  EXPECT_EQ(forecast.stages(0).peak_saved_bytes(), 0);
  EXPECT_EQ(forecast.stages(0).state_bytes(), 128);
  EXPECT_EQ(forecast.stages(1).sent_bytes(), 0);
}

TEST_F(ForecastTest, InferenceIsForwardOnly) {
  spec_.mutable_infer()->set_batch_size(8);
  const v1::Forecast forecast = Forecast();
  EXPECT_NEAR(forecast.step_seconds(), 0.009, 1e-9);
  EXPECT_EQ(forecast.stages(1).backward_seconds(), 0);
  EXPECT_EQ(forecast.stages(1).sent_bytes(), 0);
}

TEST_F(ForecastTest, AnEdgeOverSeveralLinksTakesTheSlowestOne) {
  spec_ = ParseSpec(kSkipYaml);
  facts_ = Facts(100, {32});
  layers_ = Measured(LayersFor(spec_.model(), {32}));
  // The skip from stage 0 to stage 2 is the one large value: a second for each micro-batch over the second link.
  v1::ModelValue& skip = *layers_[1].mutable_makes(1);
  ASSERT_EQ(skip.name(), "skip.x0");
  skip.mutable_shape(1)->set_fixed(64'000);
  const double bytes = 7 * 64'000 * 4;
  const double fast = Forecast({Link(0, 1e15), Link(0, 1e15)}).step_seconds();
  EXPECT_NEAR(Forecast({Link(0, 1e15), Link(0, bytes)}).step_seconds(), fast + 2, 0.1);
  EXPECT_NEAR(Forecast({Link(0, bytes), Link(0, 1e15)}).step_seconds(), fast + 2, 0.1);
}

}  // namespace
}  // namespace gpipe::orchestrator
