// The loss for large vocabularies against PyTorch's own, in every layout, type and size of block.
#include "worker/model/cross_entropy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace gpipe::worker {
namespace {

constexpr int64_t kSamples = 3, kPositions = 6, kClasses = 37, kIgnored = 5;

// PyTorch's, at whose dimension 1 the classes lie.
at::Tensor Reference(const at::Tensor& output, const at::Tensor& target, const CrossEntropyOptions& options) {
  return at::cross_entropy_loss(output.movedim(options.class_dim, 1), target, {}, at::Reduction::Mean, options.ignored,
                                options.smoothing);
}

at::Tensor Targets(at::IntArrayRef shape) {
  at::Tensor targets = at::arange(c10::multiply_integers(shape)).mul(7).remainder(kClasses);
  targets.slice(0, 1, at::nullopt, 4).fill_(kIgnored);
  return targets.view(shape);
}

at::Tensor Logits(at::IntArrayRef shape) {
  return at::arange(c10::multiply_integers(shape), at::kFloat).mul(0.37).sin().mul(4).view(shape);
}

struct Both {
  at::Tensor loss, gradient;
};

template <typename Compute>
Both WithGradient(const at::Tensor& output, const Compute& compute) {
  const at::Tensor leaf = output.detach().requires_grad_();
  const at::Tensor loss = compute(leaf);
  loss.backward();
  return {loss.detach(), leaf.grad()};
}

Both Ours(const at::Tensor& output, const at::Tensor& target, const CrossEntropyOptions& options) {
  const at::Tensor count = target.ne(options.ignored).sum();
  return WithGradient(output, [&](const at::Tensor& leaf) { return CrossEntropy(leaf, target, count, options); });
}

Both PyTorchs(const at::Tensor& output, const at::Tensor& target, const CrossEntropyOptions& options) {
  return WithGradient(output, [&](const at::Tensor& leaf) { return Reference(leaf, target, options); });
}

void ExpectEqual(const Both& actual, const Both& expected) {
  EXPECT_TRUE(at::allclose(actual.loss, expected.loss, 1e-5, 0)) << actual.loss << " " << expected.loss;
  EXPECT_TRUE(at::allclose(actual.gradient, expected.gradient, 1e-5, 1e-8))
      << (actual.gradient - expected.gradient).abs().max();
}

struct Layout {
  std::string name;
  at::Tensor output, target;
  int64_t class_dim;
};

std::vector<Layout> Layouts() {
  const at::Tensor tokens = Logits({kSamples, kPositions, kClasses}), of_tokens = Targets({kSamples, kPositions});
  return {
      {"one_position", Logits({kSamples, kClasses}), Targets({kSamples}), 1},
      {"classes_last", tokens, of_tokens, -1},
      {"classes_last_from_the_front", tokens, of_tokens, 2},
      {"classes_last_seen_second", tokens.transpose(1, 2), of_tokens, 1},
      {"classes_second", Logits({kSamples, kClasses, kPositions}), of_tokens, 1},
      {"classes_second_of_four", Logits({kSamples, kClasses, 2, 3}), of_tokens.view({kSamples, 2, 3}), 1},
      {"a_padded_vocabulary", Logits({kSamples, kPositions, kClasses + 11}).narrow(2, 0, kClasses), of_tokens, -1},
      {"every_other_position", Logits({kSamples, 2 * kPositions, kClasses}).slice(1, 0, at::nullopt, 2), of_tokens, -1},
      {"many_positions", Logits({2, kClasses, 40}), Targets({2, 40}), 1}};
}

TEST(CrossEntropyTest, IsPyTorchsInEveryLayoutAndBlock) {
  for (const Layout& layout : Layouts()) {
    for (const double smoothing : {0.0, 0.1}) {
      // One position at once, some, and all of them.
      for (const int64_t bytes : {int64_t{1}, kClasses * 4 * 4, int64_t{0}}) {
        SCOPED_TRACE(layout.name + " " + std::to_string(smoothing) + " " + std::to_string(bytes));
        const CrossEntropyOptions options{layout.class_dim, kIgnored, smoothing, bytes};
        ExpectEqual(Ours(layout.output, layout.target, options), PyTorchs(layout.output, layout.target, options));
      }
    }
  }
}

TEST(CrossEntropyTest, DoublesStayDoubles) {
  const CrossEntropyOptions options{-1, kIgnored, 0.1};
  const at::Tensor output = Logits({kSamples, kPositions, kClasses}).to(at::kDouble);
  const Both ours = Ours(output, Targets({kSamples, kPositions}), options);
  const Both expected = PyTorchs(output, Targets({kSamples, kPositions}), options);
  EXPECT_TRUE(at::allclose(ours.loss, expected.loss, 1e-12, 0));
  EXPECT_TRUE(at::allclose(ours.gradient, expected.gradient, 1e-12, 1e-15));
}

// The gradient is rounded to the logits' type, and nothing before it.
TEST(CrossEntropyTest, HalvesAreSummedAsFloats) {
  for (const c10::ScalarType type : {at::kBFloat16, at::kHalf}) {
    for (const int64_t class_dim : {int64_t{-1}, int64_t{1}}) {
      for (const double smoothing : {0.0, 0.1}) {
        SCOPED_TRACE(c10::toString(type));
        const CrossEntropyOptions options{class_dim, kIgnored, smoothing, 4 * kClasses * 4};
        const at::Tensor output = Logits({kSamples, kPositions, kClasses}).to(type).movedim(2, class_dim);
        const Both ours = Ours(output, Targets({kSamples, kPositions}), options);
        const Both expected = PyTorchs(output.to(at::kFloat), Targets({kSamples, kPositions}), options);
        EXPECT_EQ(ours.loss.scalar_type(), at::kFloat);
        EXPECT_EQ(ours.gradient.scalar_type(), type);
        EXPECT_TRUE(at::allclose(ours.loss, expected.loss, 1e-5, 0));
        const double rounding = type == at::kHalf ? 0x1p-10 : 0x1p-7;
        EXPECT_TRUE(at::allclose(ours.gradient.to(at::kFloat), expected.gradient, rounding, 1e-6));
      }
    }
  }
}

// A model that is nearly sure of the right class learns from what is left, which a half beside 1 has no digits for.
TEST(CrossEntropyTest, AGradientNearZeroIsNotRoundedAway) {
  const at::Tensor output = at::tensor({8.0F, 0.0F}).unsqueeze(0).to(at::kBFloat16);
  const Both ours = Ours(output, at::zeros({1}, at::kLong), {});
  const double rest = 1 / (1 + std::exp(8.0));
  EXPECT_NEAR(ours.gradient[0][0].item<double>() / -rest, 1, 1e-2);
  EXPECT_NEAR(ours.gradient[0][1].item<double>() / rest, 1, 1e-2);
}

TEST(CrossEntropyTest, MaskedClassesAndIgnoredPositionsAreAsInPyTorch) {
  at::Tensor output = Logits({kSamples, kPositions, kClasses}).clone();
  output.select(2, 3).fill_(-INFINITY);
  at::Tensor target = Targets({kSamples, kPositions});
  target.masked_fill_(target.eq(3), 4);
  ExpectEqual(Ours(output, target, {-1, kIgnored}), PyTorchs(output, target, {-1, kIgnored}));
  EXPECT_TRUE(std::isnan(Ours(output, at::full_like(target, kIgnored), {-1, kIgnored}).loss.item<double>()));
}

// A micro-batch's part: what counts is counted over the mini-batch.
TEST(CrossEntropyTest, PartsAddUpToTheWhole) {
  const at::Tensor output = Logits({kSamples, kPositions, kClasses}), target = Targets({kSamples, kPositions});
  const CrossEntropyOptions options{-1, kIgnored, 0.1};
  const at::Tensor count = target.ne(kIgnored).sum();
  const Both parts = WithGradient(output, [&](const at::Tensor& leaf) {
    return CrossEntropy(leaf.narrow(0, 0, 2), target.narrow(0, 0, 2), count, options) +
           CrossEntropy(leaf.narrow(0, 2, 1), target.narrow(0, 2, 1), count, options);
  });
  ExpectEqual(parts, PyTorchs(output, target, options));
}

TEST(CrossEntropyTest, ATargetThatIsNoClassIsAnError) {
  const at::Tensor target = at::full({kSamples}, kClasses, at::kLong);
  EXPECT_THROW(CrossEntropy(Logits({kSamples, kClasses}), target, at::ones({}, at::kLong), {}), c10::Error);
}

TEST(ClassHitsTest, CountsWhatArgmaxFinds) {
  for (const Layout& layout : Layouts()) {
    for (const int64_t bytes : {int64_t{1}, int64_t{0}}) {
      SCOPED_TRACE(layout.name);
      const at::Tensor best = layout.output.movedim(layout.class_dim, 1).argmax(1);
      at::Tensor target =
          at::where(at::arange(best.numel()).view(best.sizes()).remainder(3).eq(0), best, layout.target);
      const at::Tensor counts = target.ne(kIgnored);
      const at::Tensor hits = ClassHits(layout.output, target, {layout.class_dim, kIgnored, 0, bytes});
      EXPECT_EQ(hits[0].item<int64_t>(), best.eq(target).logical_and(counts).sum().item<int64_t>());
      EXPECT_EQ(hits[1].item<int64_t>(), counts.sum().item<int64_t>());
    }
  }
}

}  // namespace
}  // namespace gpipe::worker
