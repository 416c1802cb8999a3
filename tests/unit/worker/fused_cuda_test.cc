// Kernels of our own on a GPU, beside the operators that they stand for.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "worker/model/accumulating.h"
#include "worker/model/device_kernel.h"
#include "worker/model/gate.h"
#include "worker/model/rotation.h"
#include "worker/model/shared_input.h"

namespace gpipe::worker {
namespace {

const c10::Device kGpu(c10::kCUDA, 0);

class FusedTest : public ::testing::TestWithParam<c10::ScalarType> {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
    at::manual_seed(3);
  }

  at::TensorOptions options() const { return at::device(kGpu).dtype(GetParam()); }
  // Of what is rounded once more or less.
  double rtol() const { return GetParam() == at::kFloat ? 1e-5 : GetParam() == at::kHalf ? 2e-3 : 1.6e-2; }

  void ExpectSame(const at::Tensor& found, const at::Tensor& expected, double rtol) const {
    EXPECT_EQ(found.scalar_type(), expected.scalar_type());
    EXPECT_TRUE(at::allclose(found.to(at::kDouble), expected.to(at::kDouble), rtol, rtol, /*equal_nan=*/true))
        << (found.to(at::kDouble) - expected.to(at::kDouble)).abs().max();
  }

  using Compute = std::function<at::Tensor(const std::vector<at::Tensor>&)>;
  // Results, and gradients of all of `inputs` that need one.
  void ExpectSame(const Compute& fused, const Compute& operators, const std::vector<at::Tensor>& inputs) const {
    const at::Tensor found = fused(inputs), expected = operators(inputs);
    ExpectSame(found, expected, rtol());
    if (inputs[0].is_non_overlapping_and_dense()) {
      EXPECT_EQ(found.strides(), expected.strides());
    }
    std::vector<at::Tensor> trained;
    for (const at::Tensor& input : inputs) {
      if (input.requires_grad()) trained.push_back(input);
    }
    const at::Tensor gradient = at::randn_like(expected);
    const auto gradients = torch::autograd::grad({found}, trained, {gradient});
    const auto expected_gradients = torch::autograd::grad({expected}, trained, {gradient});
    for (size_t i = 0; i < trained.size(); ++i) ExpectSame(gradients[i], expected_gradients[i], rtol());
  }
};

at::Tensor Activated(Activation activation, const at::Tensor& x) {
  if (activation == Activation::kSilu) return at::silu(x);
  return at::gelu(x, activation == Activation::kGelu ? "none" : "tanh");
}

// Else all of these tests would be about operators.
TEST_P(FusedTest, KernelsAreMadeHere) {
  DeviceKernel kernel("twice", R"cuda(
extern "C" __global__ void twice(const Pack* from, Pack* to, int packs) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  for (int j = 0; j < WIDTH; ++j) to[i].bits[j] = Store(2 * Load(from[i].bits[j]));
}
)cuda");
  const at::Tensor from = at::randn({1000}, options()), to = at::empty_like(from);
  EXPECT_GT(WidthOf(from, 1000), 1);
  for (const int width : {1, WidthOf(from, 1000)}) {
    const DeviceKernel::Variant variant{kGpu.index(), GetParam(), width};
    ASSERT_TRUE(kernel.Has(variant));
    const void* source = from.const_data_ptr();
    void* target = to.mutable_data_ptr();
    int packs = 1000 / width;
    void* arguments[] = {&source, &target, &packs};
    kernel.Launch(variant, DeviceKernel::GridOf(packs), arguments);
    EXPECT_TRUE(at::equal(to, 2 * from)) << width;
    to.zero_();
  }
}

// Then operators do it: the error is not left for them.
TEST_P(FusedTest, AKernelThatCannotBeMadeIsNone) {
  DeviceKernel broken("broken", "no code");
  EXPECT_FALSE(broken.Has({kGpu.index(), GetParam(), 1}));
  EXPECT_FALSE(broken.Has({kGpu.index(), GetParam(), 1}));
  DeviceKernel nameless("nameless", "extern \"C\" __global__ void named() {}");
  EXPECT_FALSE(nameless.Has({kGpu.index(), GetParam(), 1}));
  EXPECT_EQ(at::ones({2}, options()).sum().item<double>(), 2);
}

// As one product has them, one behind the other.
TEST_P(FusedTest, GatesOfHalvesAreFused) {
  const Compute fused = [](const auto& in) {
    const std::vector<at::Tensor> halves = in[0].chunk(2, -1);
    const at::Tensor made = Gate(Activation::kSilu, halves[0], halves[1]);
    EXPECT_NE(made.grad_fn()->name().find("GateFunction"), std::string::npos);
    return made;
  };
  const Compute operators = [](const auto& in) {
    const std::vector<at::Tensor> halves = in[0].chunk(2, -1);
    return at::silu(halves[0]) * halves[1];
  };
  for (const int64_t size : {64, 6}) {
    ExpectSame(fused, operators, {at::randn({2, 3, size}, options()).set_requires_grad(true)});
    ExpectSame(fused, operators, {at::randn({2, 1, 3, size}, options()).narrow(2, 1, 1).detach().requires_grad_()});
  }
}

// Expanded, transposed, and beginning in between.
TEST_P(FusedTest, GradientsMayLieInMemoryInAnyWay) {
  const at::Tensor x = at::randn({1, 2, 8, 64}, options()).set_requires_grad(true);
  const at::Tensor y = at::randn({1, 2, 8, 64}, options()).set_requires_grad(true);
  const at::Tensor cos = at::randn({8, 64}, options()), sin = at::randn({8, 64}, options());
  const at::Tensor gated = Gate(Activation::kSilu, x, y), expected = at::silu(x) * y;
  const std::vector<at::Tensor> halves = x.to(at::kFloat).chunk(2, -1);
  const at::Tensor turned = Rotate(x, cos, sin);
  const at::Tensor expected_turned =
      (x.to(at::kFloat) * cos + at::cat({-halves[1], halves[0]}, -1) * sin).to(GetParam());
  for (const at::Tensor& gradient :
       {at::ones({}, options()).expand({1, 2, 8, 64}), at::randn({1, 2, 64, 8}, options()).mT(),
        at::randn({1 + 2 * 8 * 64}, options()).narrow(0, 1, 2 * 8 * 64).view({1, 2, 8, 64})}) {
    const auto of = [&](const at::Tensor& result, const at::Tensor& input) {
      return torch::autograd::grad({result}, {input}, {gradient}, /*retain_graph=*/true)[0];
    };
    ExpectSame(of(gated, x), of(expected, x), rtol());
    ExpectSame(of(gated, y), of(expected, y), rtol());
    ExpectSame(of(turned, x), of(expected_turned, x), rtol());
  }
}

TEST_P(FusedTest, GatesAreWhatTheOperatorsDo) {
  for (const Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh}) {
    const Compute fused = [&](const auto& in) { return Gate(activation, in[0], in[1]); };
    const Compute operators = [&](const auto& in) { return Activated(activation, in[0]) * in[1]; };
    for (const std::vector<int64_t>& sizes : std::vector<std::vector<int64_t>>{{4, 1024}, {3, 5, 7}, {1}}) {
      const at::Tensor gate = (3 * at::randn(sizes, options())).set_requires_grad(true);
      const at::Tensor up = at::randn(sizes, options()).set_requires_grad(true);
      EXPECT_NE(fused({gate, up}).grad_fn()->name().find("GateFunction"), std::string::npos);
      ExpectSame(fused, operators, {gate, up});
    }
  }
}

TEST_P(FusedTest, GatesThatDoNotFitAreDoneByOperators) {
  const Compute fused = [](const auto& in) { return Gate(Activation::kSilu, in[0], in[1]); };
  const Compute operators = [](const auto& in) { return at::silu(in[0]) * in[1]; };
  const at::Tensor gate = at::randn({4, 8}, options()).set_requires_grad(true);
  for (const at::Tensor& up : {at::randn({8}, options()), at::randn({8, 4}, options()).t(),
                               at::randn({4, 8}, options().dtype(at::kDouble)), at::randn({4, 1}, options())}) {
    ExpectSame(fused, operators, {gate, up.detach().set_requires_grad(true)});
  }
}

TEST_P(FusedTest, GatesOfWhatIsNoNumber) {
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor gate = at::tensor({infinity, -infinity, std::nan(""), 0.0, -0.0, 1e4, -1e4, 1.0}).to(options());
  const at::Tensor up = at::tensor({1.0, 1.0, 1.0, infinity, 2.0, 1e3, 1e4, std::nan("")}).to(options());
  ExpectSame(Gate(Activation::kSilu, gate, up), at::silu(gate) * up, rtol());
}

// Laid out as a projection leaves them, and in other ways; of sizes that are read in packs and one by one.
TEST_P(FusedTest, RotationsAreWhatTheOperatorsDo) {
  const Compute fused = [](const auto& in) { return Rotate(in[0], in[1], in[2]); };
  // In float: they round between the products and the sum, the kernel does not.
  const Compute operators = [](const auto& in) {
    const at::Tensor x = in[0].to(at::kFloat), cos = in[1].to(at::kFloat), sin = in[2].to(at::kFloat);
    const std::vector<at::Tensor> halves = x.chunk(2, -1);
    return (x * cos + at::cat({-halves[1], halves[0]}, -1) * sin).to(in[0].scalar_type());
  };
  for (const int64_t size : {64, 10, 2}) {
    const at::Tensor cos = at::randn({5, size}, options()), sin = at::randn({1, 1, 5, size}, options());
    std::vector<at::Tensor> inputs = {at::randn({2, 5, 3, size}, options()).transpose(1, 2),
                                      at::randn({2, 3, 5, size}, options()),
                                      at::randn({5, size}, options()).expand({3, 5, size}),
                                      at::randn({2, 3, 5, 3 * size}, options()).narrow(-1, size, size)};
    if (GetParam() == at::kFloat) {  // By operators, which round more often.
      inputs.push_back(at::randn({2, 2, 2, 5, size}, options()));
      inputs.push_back(at::randn({2, 3, size, 5}, options()).mT());
    }
    for (const at::Tensor& x : inputs) {
      const at::Tensor angle = x.dim() < sin.dim() ? sin[0] : sin;
      ExpectSame(fused, operators, {x.detach().set_requires_grad(true), cos, angle});
    }
  }
}

// Each adds its part of the input's gradient to that of the others; what else reads the input adds to it, too.
TEST_P(FusedTest, ProductsAddToTheGradientOfAnInputThatTheyShare) {
  const at::Tensor x = at::randn({2, 5, 16}, options()).set_requires_grad(true);
  std::vector<at::Tensor> weights;
  for (int i = 0; i < 3; ++i) weights.push_back(at::randn({8, 16}, options()).set_requires_grad(i < 2));
  const auto run = [&](const at::Tensor& read, auto product) {
    at::Tensor sum = read.to(at::kDouble).sum();
    for (const at::Tensor& weight : weights) sum = sum + product(read, weight).to(at::kDouble).square().sum();
    sum.backward();
    std::vector<at::Tensor> gradients = {std::exchange(x.mutable_grad(), at::Tensor())};
    for (const at::Tensor& weight : weights) gradients.push_back(std::exchange(weight.mutable_grad(), at::Tensor()));
    return gradients;
  };
  const at::Tensor shared = ShareInput(x);
  EXPECT_NE(shared.grad_fn()->name().find("SharedInput"), std::string::npos);
  EXPECT_EQ(shared.data_ptr(), x.data_ptr());
  const auto found = run(shared, [](const auto& in, const auto& w) { return AccumulatingLinear(in, w, {}); });
  const auto expected = run(x, [](const auto& in, const auto& w) { return at::linear(in, w); });
  const double scale = expected[0].abs().max().to(at::kDouble).item<double>();
  ExpectSame(found[0] / scale, expected[0] / scale, rtol());
  for (size_t i = 1; i < 3; ++i) ExpectSame(found[i], expected[i], rtol());
  EXPECT_FALSE(found[3].defined()) << "is not trained";
}

INSTANTIATE_TEST_SUITE_P(Types, FusedTest, ::testing::Values(at::kFloat, at::kHalf, at::kBFloat16),
                         [](const auto& type) { return std::string(c10::toString(type.param)); });

}  // namespace
}  // namespace gpipe::worker
