#include "worker/model/accumulating.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>

namespace gpipe::worker {
namespace {

using Operator = std::function<at::Tensor(const at::Tensor& bias, const at::Tensor& x, const at::Tensor& weight)>;

at::Tensor Leaf(const at::Tensor& values) { return values.detach().clone().set_requires_grad(true); }

at::Tensor Numbers(at::IntArrayRef sizes, double first) {
  return at::sin(at::arange(c10::multiply_integers(sizes), at::kDouble).add(first)).reshape(sizes);
}

// Gradients of bias, x and weight after so many micro-batches.
std::vector<at::Tensor> Gradients(const Operator& op, at::IntArrayRef x_sizes, const at::Tensor& weight_values,
                                  at::ScalarType type, int micro_batches) {
  at::Tensor weight = Leaf(weight_values.to(type));
  at::Tensor bias = Leaf(Numbers({4}, 0.5).to(type));
  at::Tensor x;
  for (int i = 0; i < micro_batches; ++i) {
    x = Leaf(Numbers(x_sizes, i).to(type));
    const at::Tensor y = op(bias, x, weight);
    y.backward(at::cos(y.detach()));
  }
  return {bias.grad(), x.grad(), weight.grad()};
}

void ExpectSame(const Operator& op, const Operator& expected, at::IntArrayRef x_sizes, const at::Tensor& weight) {
  for (const int micro_batches : {1, 3}) {
    const auto found = Gradients(op, x_sizes, weight, at::kDouble, micro_batches);
    const auto right = Gradients(expected, x_sizes, weight, at::kDouble, micro_batches);
    for (size_t i = 0; i < right.size(); ++i) {
      ASSERT_EQ(found[i].defined(), right[i].defined()) << i;
      if (right[i].defined()) {
        EXPECT_TRUE(at::allclose(found[i], right[i], 1e-12, 1e-14)) << i;
      }
    }
  }
}

at::Tensor Ours(const at::Tensor& bias, const at::Tensor& x, const at::Tensor& weight) {
  return AccumulatingLinear(x, weight, bias);
}

at::Tensor Torchs(const at::Tensor& bias, const at::Tensor& x, const at::Tensor& weight) {
  return at::linear(x, weight, bias);
}

TEST(AccumulatingTest, LinearIsTorchs) {
  const at::Tensor weight = Numbers({4, 3}, 7);
  ExpectSame(Ours, Torchs, {5, 3}, weight);
  ExpectSame(Ours, Torchs, {2, 5, 3}, weight);
  ExpectSame(Ours, Torchs, {3}, weight);
  ExpectSame([](const auto&, const auto& x, const auto& w) { return AccumulatingLinear(x, w, {}); },
             [](const auto&, const auto& x, const auto& w) { return at::linear(x, w); }, {5, 3}, weight);
}

TEST(AccumulatingTest, AddmmIsTorchs) {
  ExpectSame([](const auto& b, const auto& x, const auto& w) { return AccumulatingAddmm(b, x, w); },
             [](const auto& b, const auto& x, const auto& w) { return at::addmm(b, x, w); }, {5, 3},
             Numbers({3, 4}, 7));
}

TEST(AccumulatingTest, AWeightThatIsUsedTwiceGetsBoth) {
  ExpectSame([](const auto& b, const auto& x,
                const auto& w) { return AccumulatingLinear(x, w, b) + AccumulatingLinear(x * 2, w, b); },
             [](const auto& b, const auto& x, const auto& w) { return at::linear(x, w, b) + at::linear(x * 2, w, b); },
             {5, 3}, Numbers({4, 3}, 7));
}

TEST(AccumulatingTest, WhatIsNoParameterOrNotTrainedIsLeftToTorch) {
  // A gradient passes through a weight that was computed.
  ExpectSame([](const auto& b, const auto& x, const auto& w) { return AccumulatingLinear(x, w * 3, b); },
             [](const auto& b, const auto& x, const auto& w) { return at::linear(x, w * 3, b); }, {5, 3},
             Numbers({4, 3}, 7));
  ExpectSame([](const auto& b, const auto& x, const auto& w) { return AccumulatingLinear(x, w.detach(), b); },
             [](const auto& b, const auto& x, const auto& w) { return at::linear(x, w.detach(), b); }, {5, 3},
             Numbers({4, 3}, 7));
}

// The gradient stays the tensor that it is.
TEST(AccumulatingTest, AddsInPlace) {
  const at::Tensor weight = Leaf(Numbers({4, 3}, 1)), x = Numbers({5, 3}, 2);
  AccumulatingLinear(x, weight, {}).sum().backward();
  const at::Tensor first = weight.grad();
  const at::Tensor once = first.clone();
  AccumulatingLinear(x, weight, {}).sum().backward();
  EXPECT_TRUE(weight.grad().is_same(first));
  EXPECT_TRUE(at::allclose(first, once * 2));
}

// Rounded once a micro-batch.
TEST(AccumulatingTest, HalvesAreAddedUpInTheProduct) {
  const at::Tensor weight = Leaf(Numbers({4, 64}, 1).to(at::kBFloat16));
  at::Tensor exact = at::zeros({4, 64}, at::kDouble);
  for (int i = 0; i < 4; ++i) {
    const at::Tensor x = Numbers({256, 64}, i).to(at::kBFloat16), gradient = Numbers({256, 4}, 9 + i).to(at::kBFloat16);
    AccumulatingLinear(x, weight, {}).backward(gradient);
    exact += gradient.to(at::kDouble).t().mm(x.to(at::kDouble));
  }
  EXPECT_EQ(weight.grad().scalar_type(), at::kBFloat16);
  EXPECT_LT((weight.grad().to(at::kDouble) - exact).abs().max().item<double>(),
            0.02 * exact.abs().max().item<double>());
}

}  // namespace
}  // namespace gpipe::worker
