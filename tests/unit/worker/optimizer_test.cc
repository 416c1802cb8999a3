#include "worker/stage/optimizer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/unit/worker/local_pipeline.h"

namespace gpipe::worker {
namespace {

using ::testing::HasSubstr;

v1::Train TrainOf(const std::string& train) { return ParseSpec("name: test\ntrain: {" + train + "}").train(); }

// Three parameters of different layers, with gradients that depend on the step.
struct Parameters {
  Parameters() {
    list.push_back({"0.weight", 0, at::linspace(-1, 1, 6).reshape({2, 3}), true});
    list.push_back({"2.bias", 2, at::linspace(0, 2, 3), true});
    list.push_back({"3.filter", 3, at::complex(at::linspace(0, 2, 3), at::linspace(1, -1, 3)), true});
    for (NamedTensor& named : list) named.tensor.set_requires_grad(true);
  }
  void SetGradients(int step) {
    for (NamedTensor& named : list) {
      const at::Tensor value = named.tensor.detach();
      const at::Tensor gradient = at::sin((value.is_complex() ? at::view_as_real(value) : value) * 3 + step);
      named.tensor.mutable_grad() = value.is_complex() ? at::view_as_complex(gradient) : gradient;
    }
  }
  std::vector<NamedTensor> list;
};

void Steps(Optimizer& optimizer, Parameters& parameters, int from, int to) {
  for (int step = from; step < to; ++step) {
    parameters.SetGradients(step);
    ASSERT_TRUE(optimizer.Step(0.1 / (step + 1)).ok());
  }
}

class OptimizerStateTest : public ::testing::TestWithParam<std::string> {};

TEST_P(OptimizerStateTest, ContinuingFromSavedStateIsBitIdentical) {
  const v1::Optimizer spec = TrainOf("optimizer: {" + GetParam() + "}").optimizer();
  Parameters through, stopped;
  auto one = Optimizer::Create(spec, through.list).value();
  auto other = Optimizer::Create(spec, stopped.list).value();
  EXPECT_TRUE(one->State().empty());
  Steps(*one, through, 0, 7);
  Steps(*other, stopped, 0, 3);

  Values saved;
  for (const NamedTensor& entry : other->State()) saved[entry.name] = entry.tensor.clone();
  EXPECT_EQ(saved.size(), other->StateNames().size());
  for (const std::string& name : other->StateNames()) EXPECT_TRUE(saved.contains(name)) << name;
  auto resumed = Optimizer::Create(spec, stopped.list).value();
  ASSERT_TRUE(resumed->LoadState(saved).ok());
  Steps(*resumed, stopped, 3, 7);
  for (size_t i = 0; i < through.list.size(); ++i) {
    EXPECT_TRUE(at::equal(through.list[i].tensor, stopped.list[i].tensor)) << through.list[i].name;
  }
  if (saved.empty()) return;
  saved.erase(saved.begin());
  if (!saved.contains("0.weight/step")) return;
  EXPECT_EQ(resumed->LoadState(saved).code(), absl::StatusCode::kNotFound);
}

TEST_P(OptimizerStateTest, WhatNeverHadAGradientHasNoStateToContinueFrom) {
  const v1::Optimizer spec = TrainOf("optimizer: {" + GetParam() + "}").optimizer();
  Parameters parameters;
  auto optimizer = Optimizer::Create(spec, parameters.list).value();
  parameters.SetGradients(0);
  parameters.list[0].tensor.mutable_grad().reset();
  ASSERT_TRUE(optimizer->Step(0.1).ok());
  Values saved;
  for (const NamedTensor& entry : optimizer->State()) saved[entry.name] = entry.tensor.clone();
  auto resumed = Optimizer::Create(spec, parameters.list).value();
  ASSERT_TRUE(resumed->LoadState(saved).ok());
  EXPECT_EQ(resumed->State().size(), saved.size());
}

INSTANTIATE_TEST_SUITE_P(Kinds, OptimizerStateTest,
                         ::testing::Values("sgd: {lr: 1}", "sgd: {lr: 1, momentum: 0.9, dampening: 0.3}",
                                           "sgd: {lr: 1, momentum: 0.9, nesterov: true, weight_decay: 0.1}",
                                           "adam: {weight_decay: 0.1}", "adamw: {betas: [0.8, 0.9]}"));

TEST_P(OptimizerStateTest, AComplexNumberIsUpdatedAsTwoRealOnes) {
  const v1::Optimizer spec = TrainOf("optimizer: {" + GetParam() + "}").optimizer();
  Parameters complex, real;
  real.list[2].tensor = at::view_as_real(real.list[2].tensor.detach()).clone().set_requires_grad(true);
  auto one = Optimizer::Create(spec, complex.list).value();
  auto other = Optimizer::Create(spec, real.list).value();
  for (int step = 0; step < 4; ++step) {
    complex.SetGradients(step);
    real.SetGradients(step);
    at::Tensor& gradient = complex.list[2].tensor.mutable_grad();
    real.list[2].tensor.mutable_grad() = at::view_as_real(gradient).clone();
    gradient = gradient.conj().resolve_conj().conj();  // As autograd may leave it.
    EXPECT_TRUE(at::equal(one->SquaredGradientNorms(4), other->SquaredGradientNorms(4)));
    ASSERT_TRUE(one->Step(0.1).ok());
    ASSERT_TRUE(other->Step(0.1).ok());
  }
  EXPECT_TRUE(at::equal(at::view_as_real(complex.list[2].tensor.detach()), real.list[2].tensor));
  for (const NamedTensor& slot : one->State()) {
    if (slot.name.ends_with("/step") || slot.layer != 3) continue;
    EXPECT_EQ(slot.tensor.scalar_type(), c10::kComplexFloat) << slot.name << ", as PyTorch keeps it";
  }
}

// One step of each kind, by torch's formulas.
TEST(OptimizerTest, TakesTorchsSteps) {
  const auto step_once = [](const std::string& kind) {
    Parameters parameters;
    auto optimizer = Optimizer::Create(TrainOf("optimizer: {" + kind + "}").optimizer(), parameters.list).value();
    Steps(*optimizer, parameters, 0, 1);
    return parameters.list[0].tensor.detach();
  };
  const at::Tensor w = Parameters().list[0].tensor.detach(), g = at::sin(w * 3);
  EXPECT_TRUE(at::allclose(step_once("sgd: {lr: 5, weight_decay: 0.2}"), w - 0.1 * (g + 0.2 * w)));
  EXPECT_TRUE(at::allclose(step_once("sgd: {lr: 5, momentum: 0.5, nesterov: true}"), w - 0.1 * 1.5 * g));
  EXPECT_TRUE(at::allclose(step_once("adam: {}"), w - 0.1 * g / (g.abs() + 1e-8)));
  EXPECT_TRUE(at::allclose(step_once("adamw: {}"), w * (1 - 0.1 * 0.01) - 0.1 * g / (g.abs() + 1e-8)));
}

TEST(OptimizerTest, SlotsAreNamedByParameter) {
  Parameters parameters;
  auto optimizer = Optimizer::Create(TrainOf("optimizer: {adam: {}}").optimizer(), parameters.list).value();
  EXPECT_THAT(optimizer->StateNames(),
              ::testing::ElementsAre("0.weight/exp_avg", "0.weight/exp_avg_sq", "0.weight/step", "2.bias/exp_avg",
                                     "2.bias/exp_avg_sq", "2.bias/step", "3.filter/exp_avg", "3.filter/exp_avg_sq",
                                     "3.filter/step"));
}

TEST(OptimizerTest, AParameterWithoutGradientOrFrozenIsLeftAlone) {
  Parameters parameters;
  parameters.SetGradients(0);
  parameters.list[0].trainable = false;
  parameters.list[1].tensor.mutable_grad().reset();
  parameters.list[2].tensor.mutable_grad().reset();
  auto optimizer = Optimizer::Create(TrainOf("optimizer: {adamw: {}}").optimizer(), parameters.list).value();
  ASSERT_TRUE(optimizer->Step(0.1).ok());
  const Parameters fresh;
  for (int i : {0, 1, 2}) EXPECT_TRUE(at::equal(parameters.list[i].tensor, fresh.list[i].tensor));
  EXPECT_TRUE(optimizer->State().empty());
}

// Sizes around the blocks that a norm is summed in.
TEST(OptimizerTest, NormsOfLargeGradientsAreExact) {
  v1::Optimizer spec;
  spec.mutable_sgd()->set_lr(0.1);
  for (const int64_t size : {1, 255, 256, 257, 512, 3'000'001}) {
    NamedTensor parameter{"a", 0, at::zeros({size}).set_requires_grad(true), true};
    parameter.tensor.mutable_grad() = at::full({size}, 0.1f);
    const auto optimizer = *Optimizer::Create(spec, {parameter}, at::kCPU);
    const double expected = static_cast<double>(size) * 0.1f * 0.1f;
    EXPECT_NEAR(optimizer->SquaredGradientNorms(1).item<double>(), expected, 1e-6 * expected) << size;
  }
}

// As in an exported model, whose parameters come in the order in which they were registered.
TEST(OptimizerTest, ALayersParametersNeedNotBeNeighbours) {
  std::vector<NamedTensor> list;
  for (const int layer : {1, 0, 1}) {
    list.push_back({absl::StrCat("p", list.size()), layer, at::zeros({2}).set_requires_grad(true), true});
    list.back().tensor.mutable_grad() = at::full({2}, static_cast<double>(list.size()));
  }
  const auto optimizer = Optimizer::Create(TrainOf("optimizer: {sgd: {lr: 1}}").optimizer(), list).value();
  EXPECT_TRUE(at::allclose(optimizer->SquaredGradientNorms(2), at::tensor({8.0, 2.0 + 18.0}, at::kDouble)));
}

TEST(OptimizerTest, ClipsByTheNormOverAllLayers) {
  Parameters parameters;
  parameters.SetGradients(1);
  auto optimizer = Optimizer::Create(TrainOf("optimizer: {sgd: {lr: 1}}").optimizer(), parameters.list).value();
  const at::Tensor squares = optimizer->SquaredGradientNorms(4);
  ASSERT_EQ(squares.scalar_type(), at::kDouble);
  ASSERT_EQ(squares.sizes(), at::IntArrayRef({4}));
  const at::Tensor first = parameters.list[0].tensor.grad().clone(), second = parameters.list[1].tensor.grad().clone();
  EXPECT_NEAR(squares[0].item<double>(), first.square().sum().item<double>(), 1e-6);
  EXPECT_EQ(squares[1].item<double>(), 0);
  EXPECT_NEAR(squares[2].item<double>(), second.square().sum().item<double>(), 1e-6);

  const at::Tensor norm = squares.sum().sqrt();
  ASSERT_TRUE(optimizer->ClipGradients(norm, 1e9).ok());
  EXPECT_TRUE(at::equal(parameters.list[0].tensor.grad(), first));
  ASSERT_TRUE(optimizer->ClipGradients(norm, 0.5).ok());
  EXPECT_TRUE(at::allclose(parameters.list[0].tensor.grad(), first * (0.5 / (norm.item<double>() + 1e-6))));
  EXPECT_NEAR(optimizer->SquaredGradientNorms(4).sum().sqrt().item<double>(), 0.5, 1e-5);
}

TEST(OptimizerTest, AWorkerWithoutParametersHasAnOptimizerToo) {
  auto optimizer = Optimizer::Create(TrainOf("optimizer: {adam: {}}").optimizer(), {}).value();
  EXPECT_EQ(optimizer->SquaredGradientNorms(2).sum().item<double>(), 0);
  EXPECT_TRUE(optimizer->Step(0.1).ok());
  EXPECT_TRUE(optimizer->LoadState({}).ok());
}

TEST(OptimizerTest, RefusesStateThatDoesNotFit) {
  Parameters parameters;
  auto optimizer =
      Optimizer::Create(TrainOf("optimizer: {sgd: {lr: 1, momentum: 0.9}}").optimizer(), parameters.list).value();
  const absl::Status status =
      optimizer->LoadState({{"0.weight/momentum_buffer", at::ones({3, 2})}, {"2.bias/momentum_buffer", at::ones({3})}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0.weight/momentum_buffer"));
}

}  // namespace
}  // namespace gpipe::worker
