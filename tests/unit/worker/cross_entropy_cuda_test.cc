// The loss for large vocabularies on a GPU against the CPU's. Needs a CUDA device.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <vector>

#include "worker/model/cross_entropy.h"

namespace gpipe::worker {
namespace {

const c10::Device kGpu(c10::kCUDA, 0);
constexpr int64_t kIgnored = 5;

struct Both {
  at::Tensor loss, gradient;
};

Both Compute(const at::Tensor& output, const at::Tensor& target, const CrossEntropyOptions& options) {
  const at::Tensor leaf = output.detach().requires_grad_();
  const at::Tensor loss = CrossEntropy(leaf, target, target.ne(kIgnored).sum(), options);
  return {loss.detach(), torch::autograd::grad({loss}, {leaf}).front()};
}

at::Tensor Logits(at::IntArrayRef shape) {
  return at::arange(c10::multiply_integers(shape), at::kFloat).mul(0.37).sin().mul(4).view(shape);
}

class CrossEntropyCudaTest : public ::testing::TestWithParam<c10::ScalarType> {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
  // Gradients are rounded to the type, twice.
  double Rounding() const { return GetParam() == at::kBFloat16 ? 0x1p-6 : GetParam() == at::kHalf ? 0x1p-9 : 1e-5; }
};

TEST_P(CrossEntropyCudaTest, IsTheCpusInEveryLayoutAndBlock) {
  const at::Tensor target = at::arange(2 * 6).mul(7).view({2, 6});
  for (const int64_t classes : {int64_t{100}, int64_t{3000}}) {  // Few and many, where they are strided.
    for (const int64_t class_dim : {int64_t{1}, int64_t{2}}) {
      const at::Tensor output = Logits({2, classes, 6}).to(GetParam());
      const at::Tensor placed = class_dim == 1 ? output : output.transpose(1, 2).contiguous();
      for (const double smoothing : {0.0, 0.1}) {
        for (const int64_t bytes : {int64_t{1}, int64_t{0}}) {
          const CrossEntropyOptions options{class_dim, kIgnored, smoothing, bytes};
          const Both expected = Compute(placed.to(at::kFloat), target, options);
          const Both found = Compute(placed.to(kGpu), target.to(kGpu), options);
          EXPECT_TRUE(at::allclose(found.loss.cpu(), expected.loss, 1e-5, 0)) << found.loss << expected.loss;
          EXPECT_EQ(found.gradient.scalar_type(), GetParam());
          const at::Tensor gradient = found.gradient.cpu().to(at::kFloat);
          EXPECT_TRUE(at::allclose(gradient, expected.gradient, Rounding(), 1e-6))
              << (gradient - expected.gradient).abs().max();
          const at::Tensor hits = ClassHits(placed.to(kGpu), target.to(kGpu), options);
          EXPECT_TRUE(at::equal(hits.cpu(), ClassHits(placed, target, options)));
        }
      }
    }
  }
}

// Of sizes that are read in packs and one by one, and of logits that are all large.
TEST_P(CrossEntropyCudaTest, IsPyTorchsOfManyClasses) {
  at::manual_seed(2);
  const at::TensorOptions on_gpu = at::device(kGpu);
  for (const int64_t classes : {int64_t{50257}, int64_t{32000}, int64_t{7}}) {
    const at::Tensor logits = (3 * at::randn({65, classes}, on_gpu) + 100).to(GetParam());
    const at::Tensor target = at::randint(classes, {65}, on_gpu.dtype(at::kLong));
    target[3] = kIgnored;
    for (const double smoothing : {0.0, 0.1}) {
      const Both found = Compute(logits, target, {1, kIgnored, smoothing});
      const at::Tensor leaf = logits.to(at::kDouble).requires_grad_();
      const at::Tensor loss = at::cross_entropy_loss(leaf, target, {}, at::Reduction::Mean, kIgnored, smoothing);
      EXPECT_TRUE(at::allclose(found.loss.to(at::kDouble), loss, 2e-6, 0)) << found.loss << loss;
      const at::Tensor gradient = torch::autograd::grad({loss}, {leaf}).front();
      const double step = GetParam() == at::kHalf ? 0x1p-24 : 0;  // Of the smallest halves.
      const double largest = gradient.abs().max().item<double>();
      EXPECT_TRUE(at::allclose(found.gradient.to(at::kDouble), gradient, Rounding() / 2, 1e-6 * largest + step))
          << classes << " " << (found.gradient.to(at::kDouble) - gradient).abs().max();
    }
  }
}

TEST_P(CrossEntropyCudaTest, WhatIsNoNumberIsAsInPyTorch) {
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor target = at::ones({1}, at::device(kGpu).dtype(at::kLong));
  for (const std::vector<double>& row : std::vector<std::vector<double>>{{-infinity, 1, 2, -infinity},
                                                                         {1, -infinity, 2, 3},
                                                                         {-infinity, -infinity, -infinity, -infinity},
                                                                         {infinity, 1, 2, 3},
                                                                         {-infinity, 1, std::nan(""), -infinity},
                                                                         {-infinity, -infinity, std::nan(""), 1}}) {
    const at::Tensor logits = at::tensor(row).to(kGpu, GetParam()).reshape({1, -1});
    const Both found = Compute(logits, target, {1, kIgnored, 0});
    const at::Tensor leaf = logits.to(at::kDouble).requires_grad_();
    const at::Tensor loss = at::cross_entropy_loss(leaf, target);
    EXPECT_TRUE(at::allclose(found.loss.to(at::kDouble), loss, 1e-5, 1e-5, /*equal_nan=*/true)) << logits;
    const at::Tensor gradient = torch::autograd::grad({loss}, {leaf}).front();
    EXPECT_TRUE(at::allclose(found.gradient.to(at::kDouble), gradient, Rounding(), 1e-5, /*equal_nan=*/true)) << logits;
  }
}

// Captured once, it computes whatever logits and targets are there when it is replayed.
TEST_P(CrossEntropyCudaTest, IsCapturedInAGraph) {
  const CrossEntropyOptions options{-1, kIgnored, 0.1};
  const at::Tensor output = Logits({2, 6, 3000}).to(GetParam()).to(kGpu);
  const at::Tensor target = at::arange(2 * 6).mul(7).view({2, 6}).to(kGpu);
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool(false, 0));
  Compute(output, target, options);  // What is loaded at first use is not captured.
  c10::cuda::device_synchronize();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const Both captured = Compute(output, target, options);
  graph.capture_end();
  output.copy_(output.flip({2}));
  target.copy_(target.flip({1}));
  graph.replay();
  const Both expected = Compute(output, target, options);
  EXPECT_TRUE(at::equal(captured.loss, expected.loss));
  EXPECT_TRUE(at::equal(captured.gradient, expected.gradient));
}

INSTANTIATE_TEST_SUITE_P(Types, CrossEntropyCudaTest, ::testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

}  // namespace
}  // namespace gpipe::worker
