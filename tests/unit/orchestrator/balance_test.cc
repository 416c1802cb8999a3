#include "orchestrator/planning/balance.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "orchestrator/planning/checkpoint_choice.h"
#include "orchestrator/planning/pass_balance.h"
#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

v1::JobSpec WithoutBalance(const char* yaml) {
  v1::JobSpec spec = ParseSpec(yaml);
  spec.mutable_pipeline()->clear_balance();
  return spec;
}

LayerInfos Timed(LayerInfos layers, const std::vector<int64_t>& forward_nanos,
                 const std::vector<int64_t>& backward_nanos = {}) {
  for (size_t i = 0; i < layers.size(); ++i) layers[i].set_forward_nanos(forward_nanos[i]);
  for (size_t i = 0; i < backward_nanos.size(); ++i) layers[i].set_backward_nanos(backward_nanos[i]);
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

// kTrainYaml's balance of two layers and one: 32 and 24 parameters of four bytes, and as many of gradients.
class GivenBalanceTest : public BalanceTest {
 protected:
  absl::StatusOr<std::vector<int64_t>> Cut(std::vector<int64_t> memory) const {
    return Balance({.spec = given_,
                    .facts = facts_,
                    .layers = layers_,
                    .workers = static_cast<int>(memory.size()),
                    .memory_bytes = memory});
  }
  std::string Refusal(std::vector<int64_t> memory) const {
    const absl::Status status = Cut(std::move(memory)).status();
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    return std::string(status.message());
  }

  v1::JobSpec given_ = ParseSpec(kTrainYaml);
};

TEST_F(GivenBalanceTest, WhatFitsIsTaken) {
  EXPECT_THAT(*Cut({256, 192}), ElementsAre(2, 1));
  EXPECT_THAT(*Cut({0, 0}), ElementsAre(2, 1)) << "any number";
  EXPECT_THAT(*Cut({448}), ElementsAre(2, 1)) << "both stages on one worker";
}

TEST_F(GivenBalanceTest, AStageThatItsWorkerCannotHoldIsNamed) {
  EXPECT_EQ(Refusal({256, 191}),
            "out of memory: stage 1 (layers 2 to 2) needs 192 bytes for weights, gradients and optimizer state, and "
            "worker 1 can take 191; no cut for 2 such workers fits: cut it into more stages, on more workers, or use "
            "workers with more memory");
  EXPECT_THAT(Refusal({447}), HasSubstr("stages 0 to 1 (layers 0 to 2) together need 448 bytes"));
  given_.mutable_train()->mutable_optimizer()->mutable_adam()->set_lr(0.1);
  EXPECT_THAT(Refusal({256, 1000}), HasSubstr("stage 0 (layers 0 to 1) needs 512 bytes"));
}

TEST_F(GivenBalanceTest, ABalanceThatFitsIsTold) {
  given_.mutable_pipeline()->clear_balance();
  for (const int64_t layers : {1, 2}) given_.mutable_pipeline()->add_balance(layers);
  layers_[1].set_parameter_count(10);
  layers_[1].set_parameter_bytes(40);
  EXPECT_THAT(Refusal({400, 200}), HasSubstr("these workers can hold pipeline.balance: [2, 1]"));
}

TEST_F(GivenBalanceTest, InferenceNeedsWeightsAlone) {
  given_.mutable_infer()->set_batch_size(8);
  EXPECT_TRUE(Cut({128, 96}).ok());
  EXPECT_THAT(Refusal({127, 96}), HasSubstr("needs 128 bytes for weights, and worker 0 can take 127"));
}

// Beside two bytes that are computed with: master, gradient and momentum, of four bytes each.
TEST_F(GivenBalanceTest, MastersCountInMixedPrecision) {
  given_.mutable_train()->set_precision(v1::PRECISION_BF16);
  given_.mutable_train()->mutable_optimizer()->mutable_sgd()->set_momentum(0.9);
  for (v1::LayerInfo& layer : layers_) {
    layer.set_parameter_count(100);
    layer.set_parameter_bytes(200);
    layer.set_trainable_count(50);  // What is frozen has a master alone.
  }
  EXPECT_THAT(Refusal({1, 0}), HasSubstr(absl::StrCat("needs ", 2 * (100 * (2 + 4) + 50 * (4 + 4)), " bytes")));
  layers_[0].set_parameter_bytes(400);  // A batch norm.
  EXPECT_THAT(Refusal({1, 0}), HasSubstr(absl::StrCat("needs ", 400 + 50 * 8 + 100 * 6 + 50 * 8, " bytes")));
}

TEST_F(GivenBalanceTest, MastersOfAnExportedModelAreThoseOfItsType) {
  given_.mutable_model()->clear_sequential();
  given_.mutable_model()->mutable_exported()->set_path("model.pt2");
  given_.mutable_train()->set_precision(v1::PRECISION_FP16);
  given_.mutable_train()->mutable_optimizer()->mutable_adam();
  for (v1::LayerInfo& layer : layers_) {
    layer.set_parameter_count(110);
    layer.set_parameter_bytes(240);
    layer.set_trainable_count(110);
    layer.clear_tensors();
    for (const auto& [type, size] : {std::pair(v1::DATA_TYPE_FLOAT16, 100), std::pair(v1::DATA_TYPE_FLOAT32, 10)}) {
      v1::ModelTensor& tensor = *layer.add_tensors();
      tensor.set_name(absl::StrCat("weight", layer.tensors_size()));
      tensor.add_shape(size);
      tensor.set_dtype(type);
      tensor.set_trainable(true);
    }
  }
  // Layers of one worker have these tensors once.
  EXPECT_THAT(Refusal({1, 0}), HasSubstr(absl::StrCat("needs ", 100 * (2 + 4 + 4 + 8) + 10 * 4 * 4, " bytes")));
}

TEST_F(GivenBalanceTest, AWorkerHasATensorOnceThatSeveralOfItsLayersUse) {
  for (v1::LayerInfo& layer : layers_) {
    layer.set_parameter_count(100);
    layer.set_parameter_bytes(400);
    layer.set_trainable_count(100);
    v1::ModelTensor& tensor = *layer.add_tensors();
    tensor.set_name("tied");
    tensor.add_shape(100);
    tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
    tensor.set_trainable(true);
  }
  EXPECT_TRUE(Cut({800, 800}).ok());
  EXPECT_THAT(Refusal({799, 800}), HasSubstr("needs 800 bytes"));
}

TEST_F(GivenBalanceTest, WhatIsSavedCountsWhereItWasMeasured) {
  LayerInfos measured = layers_;
  for (v1::LayerInfo& layer : measured) layer.set_activation_bytes_per_sample(1000);
  const PlanRequest given{.spec = given_,
                          .facts = facts_,
                          .layers = layers_,
                          .workers = 2,
                          .profiles = {&measured, &measured},
                          .memory_bytes = {4000, 4000}};
  const absl::Status status = Balance(given).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("gradients and optimizer state and what is saved, and worker 0"));
  EXPECT_TRUE(Cut({4000, 4000}).ok());
}

TEST_F(BalanceTest, AnAutomaticCutBalancesMeasuredTimes) {
  const LayerInfos light_end = Timed(layers_, {1000, 1000, 10}), heavy_end = Timed(layers_, {1000, 1000, 10000});
  EXPECT_THAT(*Balance(Request(light_end, light_end)), ElementsAre(1, 2));
  EXPECT_THAT(*Balance(Request(heavy_end, heavy_end)), ElementsAre(2, 1));
}

// Eight layers and a head that is long in the forward pass.
TEST(PassBalanceTest, ForwardAndBackwardEachHaveASlowestStage) {
  const std::vector<double> forward = {1, 1, 1, 1, 1, 1, 1, 1, 6}, backward = {2, 2, 2, 2, 2, 2, 2, 2, 4};
  const StepSeconds seconds = {{{forward, forward}, {0, 0}}, {{backward, backward}, {0, 0}}};
  const auto any = [](const std::vector<int64_t>&) { return true; };
  EXPECT_EQ(SlowestPasses(seconds, {6, 3}), 8 + 12);
  EXPECT_EQ(SlowestPasses(seconds, {5, 4}), 9 + 10);
  EXPECT_THAT(BalancePasses(seconds, {6, 3}, any), ElementsAre(5, 4));
  EXPECT_THAT(BalancePasses(seconds, {5, 4}, any), ElementsAre(5, 4));
  EXPECT_THAT(BalancePasses(seconds, {6, 3}, [](const auto& cut) { return cut[0] != 5; }), ElementsAre(6, 3));
}

TEST(PassBalanceTest, SendingTakesItsTime) {
  const std::vector<double> layers(8, 1.0);
  const StepSeconds seconds = {{{layers, layers}, {4, 0}}, {{layers, layers}, {0, 0}}};
  const auto any = [](const std::vector<int64_t>&) { return true; };
  EXPECT_EQ(SlowestPasses(seconds, {4, 4}), 8 + 4);
  EXPECT_THAT(BalancePasses(seconds, {2, 6}, any), ElementsAre(2, 6)) << "6 forward and 6 backward";
}

TEST_F(BalanceTest, ACutIsAsFastAsGPipesScheduleLetsItBe) {
  LayerInfos layers = Timed(layers_, {1000, 1000, 6000}, {4000, 4000, 1000});
  spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_NEVER);
  // The slowest of [2, 1] takes 10000, of [1, 2] 12000. But it is 6000 forward and 8000 backward, beside 7000 and 5000.
  EXPECT_THAT(*Balance(Request(layers, layers)), ElementsAre(1, 2));
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

// Layers of 1000 bytes a sample: of 2 samples 2000 inside each, for one micro-batch or for all 4.
TEST_F(BalanceTest, WhatIsLeftOpenIsNeverComputedAgainWhereAllOfItFits) {
  LayerInfos even = Timed(layers_, {1000, 1000, 1000});
  for (v1::LayerInfo& layer : even) layer.set_activation_bytes_per_sample(1000);
  PlanRequest request = Request(even, even);
  spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_AUTO);
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_EXCEPT_LAST) << "others use that memory";
  request.may_keep_all = true;
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_NEVER) << "memory is not known to have a bound";
  request.memory_bytes = {20000, 20000};
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_NEVER);
  request.memory_bytes = {5000, 5000};
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_EXCEPT_LAST);
  request.memory_bytes = {17000, 9000};
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_NEVER) << "two layers on the first worker";
  request.profiles.clear();
  request.memory_bytes = {20000, 20000};
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_EXCEPT_LAST) << "nobody knows what it keeps";
  spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_ALWAYS);
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_ALWAYS);
}

// Kept, the slowest passes take 5500 and 6900, computed again 4500 and 10000. But the slowest stage takes 12400 of the
// one, and 12000 of the other.
TEST_F(BalanceTest, WhatIsLeftOpenIsDecidedByWholeSteps) {
  LayerInfos layers = Timed(layers_, {1000, 1000, 4500}, {4000, 4000, 2900});
  PlanRequest request = Request(layers, layers);
  request.may_keep_all = true;
  spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_AUTO);
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_NEVER);
}

TEST_F(BalanceTest, AMovedBorderKeepsToTheMemoryOfEachWorker) {
  LayerInfos layers = Timed(layers_, {1000, 1000, 6000}, {4000, 4000, 1000});
  for (v1::LayerInfo& layer : layers) layer.set_activation_bytes_per_sample(1 << 20);
  spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_NEVER);
  PlanRequest request = Request(layers, layers);
  EXPECT_THAT(*Balance(request), ElementsAre(1, 2));
  const int64_t kept = MicroBatches(spec_, facts_) * LargestMicroBatch(spec_, facts_) << 20;
  request.memory_bytes = {0, kept + kept / 2};
  EXPECT_THAT(*Balance(request), ElementsAre(2, 1));
}

// Nine layers on two workers, of which the second one holds but one of them if all micro-batches are kept.
TEST_F(BalanceTest, ALopsidedCutIsNotWorthWhatItSpares) {
  UseSkips();
  LayerInfos even = Timed(layers_, std::vector<int64_t>(9, 1000));
  for (v1::LayerInfo& layer : even) {
    layer.set_backward_nanos(2000);
    layer.set_activation_bytes_per_sample(1 << 20);
  }
  PlanRequest request = Request(even, even);
  request.may_keep_all = true;
  spec_.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_AUTO);
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_NEVER);
  const int64_t kept = MicroBatches(spec_, facts_) * LargestMicroBatch(spec_, facts_) << 20;
  request.memory_bytes = {0, kept + kept / 2};
  EXPECT_EQ(ChooseCheckpoint(request), v1::CHECKPOINT_EXCEPT_LAST);
}

}  // namespace
}  // namespace gpipe::orchestrator
