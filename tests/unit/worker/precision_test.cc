// Mixed precision: what a stage computes in, what is kept beside that, and what updates it.
#include "worker/model/precision.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/unit/worker/local_pipeline.h"
#include "worker/model/channel_statistics.h"
#include "worker/stage/loss_scale.h"
#include "worker/stage/masters.h"
#include "worker/stage/optimizer.h"

namespace gpipe::worker {
namespace {

v1::JobSpec Network(v1::Precision precision, const std::string& pipeline = "{}") {
  v1::JobSpec spec = MixedNetwork("0.0", pipeline);
  spec.mutable_train()->set_precision(precision);
  return spec;
}

class PrecisionTest : public ::testing::TestWithParam<v1::Precision> {
 protected:
  const c10::ScalarType type_ = Precision::Of(GetParam(), true).compute;
  const at::Tensor input_ = at::sin(at::arange(10 * 2 * 64, at::kFloat)).reshape({10, 2, 8, 8});
  const at::Tensor target_ = at::arange(10, at::kLong).remainder(5);
};

INSTANTIATE_TEST_SUITE_P(Types, PrecisionTest, ::testing::Values(v1::PRECISION_BF16, v1::PRECISION_FP16));

bool IsBatchNorm(const std::string& name) { return absl::StartsWith(name, "1."); }

TEST_P(PrecisionTest, ALayerListIsTheFp32OneRounded) {
  LocalPipeline wide(Network(v1::PRECISION_FP32), {12}), mixed(Network(GetParam()), {5, 7});
  const Values initial = wide.State();
  for (const auto& stage : mixed.stages()) {
    for (const NamedTensor& named : stage->state()) {
      const at::Tensor& exact = initial.at(named.name);
      if (IsBatchNorm(named.name)) {
        EXPECT_FALSE(named.master.defined()) << named.name;
        EXPECT_EQ(named.tensor.scalar_type(), exact.scalar_type()) << named.name;
        continue;
      }
      EXPECT_EQ(named.tensor.scalar_type(), type_) << named.name;
      EXPECT_TRUE(at::equal(named.master, exact)) << named.name;
      EXPECT_TRUE(at::equal(named.tensor, exact.to(type_))) << named.name;
    }
  }
}

TEST_P(PrecisionTest, GradientsAddUpInFp32WhateverTheCut) {
  LocalPipeline whole(Network(GetParam()), {12});
  const at::Tensor loss = whole.Train(input_, target_, {4, 4, 2}, 2);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  for (const auto& [name, gradient] : whole.Gradients()) EXPECT_EQ(gradient.scalar_type(), at::kFloat) << name;
  LocalPipeline cut(Network(GetParam()), {3, 5, 4});
  EXPECT_TRUE(at::equal(cut.Train(input_, target_, {4, 4, 2}, 3), loss));
  for (const auto& [name, gradient] : cut.Gradients()) EXPECT_TRUE(at::equal(gradient, whole.Gradients().at(name)));
  // No sum in the type of the weights: what the micro-batches give one by one, added in fp32.
  std::vector<Values> parts;
  for (const auto& [first, size] : std::vector<std::pair<int, int>>{{8, 2}, {4, 4}, {0, 4}}) {
    LocalPipeline one(Network(GetParam()), {12});
    one.Train(input_.narrow(0, first, size), target_.narrow(0, first, size), {size});
    parts.push_back(one.Gradients());
  }
  for (const auto& [name, gradient] : whole.Gradients()) {
    const at::Tensor sum = (parts[0].at(name) * 2 + parts[1].at(name) * 4 + parts[2].at(name) * 4) / 10;
    EXPECT_TRUE(at::allclose(gradient, sum, 0.1, 5e-3)) << name;
  }
}

TEST_P(PrecisionTest, WhatCrossesIsInTheTypeThatIsComputedIn) {
  LocalPipeline cut(Network(GetParam()), {5, 7});
  Stage& first = *cut.stages()[0];
  ASSERT_TRUE(first.Begin({1, 0, {10}, false, {}}).ok());
  const auto made = first.Forward(0, {input_}, ForwardMode::kInference);
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_FALSE(made->values.empty());
  for (const at::Tensor& value : made->values) EXPECT_EQ(value.scalar_type(), type_);
  ASSERT_TRUE(first.End().ok());
}

TEST_P(PrecisionTest, StatisticsOfDeferredBatchNormAreFp32) {
  LocalPipeline mixed(Network(GetParam(), "{deferred_batch_norm: true}"), {12});
  mixed.Train(input_, target_, {4, 4, 2}, 2);
  const Values state = mixed.State();
  EXPECT_EQ(state.at("1.running_var").scalar_type(), at::kFloat);
  const at::Tensor large = (at::sin(at::arange(4096, at::kFloat)) + 40).reshape({64, 1, 64}).to(type_);
  EXPECT_TRUE(at::allclose(ChannelStatistics::Of(large).UnbiasedVariance(), large.to(at::kFloat).var()));
}

std::vector<NamedTensor> Rounded(c10::ScalarType type) {
  std::vector<NamedTensor> list;
  for (int i = 0; i < 2; ++i) {
    NamedTensor named{absl::StrCat(i, ".weight"), i, {}, true};
    named.master = at::linspace(-1, 1, 6).reshape({2, 3}) / (i + 3);
    named.tensor = named.master.to(type).set_requires_grad(true);
    named.tensor.set_grad_dtype(at::kFloat);
    list.push_back(named);
  }
  return list;
}

void SetGradients(std::vector<NamedTensor>& list, double scale) {
  for (NamedTensor& named : list) named.tensor.mutable_grad() = at::sin(named.master * 3) * scale;
}

v1::Optimizer Spec(const std::string& kind) {
  return ParseSpec("name: test\ntrain: {optimizer: {" + kind + "}}").train().optimizer();
}

// Steps that are smaller than what bf16 tells apart add up.
TEST_P(PrecisionTest, UpdatesAreMadeToTheMasters) {
  for (const std::string kind : {"sgd: {lr: 1, momentum: 0.9}", "adam: {}", "adamw: {}"}) {
    std::vector<NamedTensor> mixed = Rounded(type_), wide = Rounded(at::kFloat);
    for (NamedTensor& named : wide) named.tensor = std::exchange(named.master, {}).set_requires_grad(true);
    auto one = Optimizer::Create(Spec(kind), mixed, at::kCPU, {{.compute = type_}}).value();
    auto other = Optimizer::Create(Spec(kind), wide).value();
    for (int step = 0; step < 20; ++step) {
      SetGradients(mixed, 1);
      for (size_t i = 0; i < wide.size(); ++i) wide[i].tensor.mutable_grad() = mixed[i].tensor.grad().clone();
      ASSERT_TRUE(one->Step(1e-5).ok());
      ASSERT_TRUE(other->Step(1e-5).ok());
    }
    for (size_t i = 0; i < wide.size(); ++i) {
      EXPECT_TRUE(at::equal(mixed[i].master, wide[i].tensor)) << kind;
      EXPECT_TRUE(at::equal(mixed[i].tensor, wide[i].tensor.to(type_))) << kind;
    }
  }
}

TEST_P(PrecisionTest, MastersAndTheScaleAreInTheStateOfAnExportedModel) {
  for (const bool files_hold_masters : {false, true}) {
    std::vector<NamedTensor> live = Rounded(type_), fresh = Rounded(type_);
    LossScale scale(at::kCPU), fresh_scale(at::kCPU);
    const bool scales = type_ == at::kHalf;
    MixedState::Options options{{type_, files_hold_masters}, scales ? &scale : nullptr};
    auto optimizer = Optimizer::Create(Spec("sgd: {lr: 1, momentum: 0.9}"), live, at::kCPU, options).value();
    SetGradients(live, LossScale::kFirst);
    if (scales) scale.Unscale(optimizer->SquaredGradientNorms(2));
    ASSERT_TRUE(optimizer->Step(0.1).ok());
    Values saved;
    for (const NamedTensor& entry : optimizer->State()) saved[entry.name] = entry.tensor.clone();
    EXPECT_EQ(saved.contains("0.weight/master"), !files_hold_masters);
    EXPECT_TRUE(saved.contains(scales ? "precision/fp16" : "precision/bf16"));

    options.loss_scale = scales ? &fresh_scale : nullptr;
    auto resumed = Optimizer::Create(Spec("sgd: {lr: 1, momentum: 0.9}"), fresh, at::kCPU, options).value();
    if (files_hold_masters) {
      for (size_t i = 0; i < live.size(); ++i) fresh[i].master.copy_(live[i].master);
      ASSERT_TRUE(RoundMasters(fresh).ok());
    }
    ASSERT_TRUE(resumed->LoadState(saved).ok());
    for (size_t i = 0; i < live.size(); ++i) {
      EXPECT_TRUE(at::equal(fresh[i].master, live[i].master));
      EXPECT_TRUE(at::equal(fresh[i].tensor, live[i].tensor));
    }
    EXPECT_TRUE(at::equal(fresh_scale.good_steps(), scale.good_steps()));
    saved.erase(scales ? "precision/fp16" : "precision/bf16");
    EXPECT_EQ(resumed->LoadState(saved).code(), absl::StatusCode::kNotFound);
  }
}

TEST(MixedStateTest, OneWorkerSavesTheScale) {
  LossScale scale(at::kCPU);
  const MixedState other({Precision::Of(v1::PRECISION_FP16, true), &scale, /*saves_scale=*/false}, {});
  EXPECT_TRUE(other.State().empty());
  EXPECT_THAT(other.Names(), ::testing::ElementsAre("precision/fp16", "precision/good_steps"));
  EXPECT_TRUE(MixedState({}, {}).Names().empty());
}

// As torch.amp.GradScaler.
TEST(LossScaleTest, HalvesAtAnOverflowAndDoublesAfterManyStepsWithout) {
  LossScale scale(at::kCPU);
  const at::Tensor good = at::ones({2}, at::kDouble);
  const at::Tensor bad = at::full({2}, std::numeric_limits<double>::infinity(), at::kDouble);
  EXPECT_DOUBLE_EQ(scale.Unscale(good)[0].item<double>(), 1.0 / (65536.0 * 65536.0));
  scale.Update();
  EXPECT_EQ(scale.good_steps().item<int>(), 1);
  for (const at::Tensor& overflow : {bad, bad * 0}) {  // Infinite, and not a number.
    scale.Unscale(overflow);
    EXPECT_EQ(scale.overflow().item<float>(), 1);
    scale.Update();
    EXPECT_EQ(scale.good_steps().item<int>(), 0);
  }
  EXPECT_EQ(scale.scale().item<float>(), 16384);
  for (int step = 0; step < 2000; ++step) {
    scale.Unscale(good);
    scale.Update();
  }
  EXPECT_EQ(scale.scale().item<float>(), 32768);
}

TEST(LossScaleTest, AnOverflowLeavesTheStepOut) {
  for (const std::string kind : {"sgd: {lr: 1, momentum: 0.9}", "sgd: {lr: 1}", "adam: {}", "adamw: {}"}) {
    std::vector<NamedTensor> plain = Rounded(at::kHalf), scaled = Rounded(at::kHalf);
    LossScale scale(at::kCPU);
    auto one = Optimizer::Create(Spec(kind), plain, at::kCPU, {{.compute = at::kHalf}}).value();
    auto other = Optimizer::Create(Spec(kind), scaled, at::kCPU, {{.compute = at::kHalf}, &scale}).value();
    for (int step = 0; step < 4; ++step) {
      const bool overflows = step % 2 == 0;  // The first step, too.
      SetGradients(scaled, scale.scale().item<double>());
      if (overflows) scaled[0].tensor.mutable_grad()[0][1].fill_(std::numeric_limits<float>::quiet_NaN());
      scale.Unscale(other->SquaredGradientNorms(2));
      ASSERT_TRUE(other->Step(0.1).ok());
      if (overflows) continue;
      SetGradients(plain, 1);
      ASSERT_TRUE(one->Step(0.1).ok());
    }
    EXPECT_EQ(scale.scale().item<float>(), 16384);
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(scaled[i].master, plain[i].master)) << kind;
  }
}

TEST(LossScaleTest, MultipliesGradientsAndNotTheLoss) {
  const at::Tensor input = at::sin(at::arange(4 * 2 * 64, at::kFloat)).reshape({4, 2, 8, 8});
  const at::Tensor target = at::arange(4, at::kLong);
  LossScale scale(at::kCPU);
  LocalPipeline plain(Network(v1::PRECISION_FP32), {12}), scaled(Network(v1::PRECISION_FP32), {12});
  scaled.SetLossScale(scale.scale());
  EXPECT_TRUE(at::equal(plain.Train(input, target, {2, 2}), scaled.Train(input, target, {2, 2})));
  for (const auto& [name, gradient] : plain.Gradients()) {
    EXPECT_TRUE(at::equal(gradient * LossScale::kFirst, scaled.Gradients().at(name))) << name;
  }
}

}  // namespace
}  // namespace gpipe::worker
