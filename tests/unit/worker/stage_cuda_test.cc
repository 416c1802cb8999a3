// The stage on a GPU against the stage on the CPU. Needs a CUDA device.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "common/plan/shape.h"
#include "tests/unit/worker/local_pipeline.h"
#include "worker/checkpoint/checkpoint_writer.h"
#include "worker/model/accumulating.h"
#include "worker/model/attention_gradient.h"
#include "worker/model/inspect.h"
#include "worker/model/random.h"
#include "worker/stage/optimizer.h"

namespace gpipe::worker {
namespace {

const c10::Device kGpu(c10::kCUDA, 0);

v1::JobSpec Network(const std::string& dropout) {
  return MixedNetwork(dropout, "{deferred_batch_norm: true, capture: never}");
}

const std::vector<int64_t> kSizes = {4, 4, 2};

// Counts as an error every time the host waits for the device.
class NoWaiting {
 public:
  NoWaiting() { c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR); }
  ~NoWaiting() { c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED); }
};

class StageCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "no CUDA device";
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setDeterministicCuDNN(true);
    stream_.emplace(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, 0));
  }

  std::optional<c10::cuda::CUDAStreamGuard> stream_;  // As threads of a worker have one of their own.
  const at::Tensor input_ = at::sin(at::arange(10 * 2 * 64, at::kFloat)).reshape({10, 2, 8, 8});
  const at::Tensor target_ = at::arange(10, at::kLong).remainder(5);
};

// The count of an optimizer's steps is made for the checkpoint, behind all that the stream still has to do.
TEST_F(StageCudaTest, ACheckpointWaitsForWhatTheStreamStillMakes) {
  at::Tensor busy = at::ones({4096, 4096}, kGpu);
  TrainingState saved;
  {
    CheckpointWriter::Options options;
    options.device = kGpu;
    options.save = [&](const TrainingState& copy, const std::stop_token&) {
      saved = copy;
      return absl::OkStatus();
    };
    CheckpointWriter writer(std::move(options));
    for (int i = 0; i < 50; ++i) busy = at::matmul(busy, busy).mul_(1.0 / 4096);
    const at::Tensor made = busy.flatten().slice(0, 0, 1000).mul(7).round().to(at::kLong);
    ASSERT_TRUE(writer.Begin({.step = 1, .model = {}, .optimizer = {{"weight/step", 0, made}}}).ok());
    ASSERT_TRUE(writer.Wait().ok());
  }
  ASSERT_EQ(saved.optimizer.size(), 1u);
  EXPECT_TRUE(at::equal(saved.optimizer[0].tensor, at::full({1000}, 7, at::kLong)));
}

TEST_F(StageCudaTest, StartsAndTrainsAsOnTheCpu) {
  const v1::JobSpec spec = Network("0.0");
  LocalPipeline cpu(spec, {12}), gpu(spec, {5, 3, 4}, kGpu);
  for (const auto& [name, tensor] : gpu.State()) EXPECT_TRUE(at::equal(tensor.cpu(), cpu.State().at(name))) << name;
  for (const int checkpointed : {0, 2, 3}) {
    const at::Tensor expected = cpu.Train(input_, target_, kSizes, checkpointed);
    const at::Tensor loss = gpu.Train(input_.to(kGpu), target_.to(kGpu), kSizes, checkpointed);
    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-5);
    const Values gradients = cpu.Gradients();
    for (const auto& [name, gradient] : gpu.Gradients()) {
      EXPECT_TRUE(at::allclose(gradient.cpu(), gradients.at(name), 1e-4, 1e-5)) << name;
    }
  }
  for (const auto& [name, tensor] : gpu.State()) {
    EXPECT_TRUE(at::allclose(tensor.cpu(), cpu.State().at(name), 1e-4, 1e-6)) << name;
  }
}

TEST_F(StageCudaTest, TrainsInMixedPrecisionAsOnTheCpu) {
  for (const v1::Precision precision : {v1::PRECISION_BF16, v1::PRECISION_FP16}) {
    v1::JobSpec spec = Network("0.0");
    spec.mutable_train()->set_precision(precision);
    LocalPipeline cpu(spec, {12}), gpu(spec, {5, 3, 4}, kGpu);
    const at::Tensor expected = cpu.Train(input_, target_, kSizes, 2);
    const at::Tensor loss = gpu.Train(input_.to(kGpu), target_.to(kGpu), kSizes, 2);
    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 0.02);
    // As a whole: where a rounding decides whether a ReLU is on, single elements differ by all that they are, and of a
    // bias before a batch normalisation there is nothing but roundings.
    const Values gradients = cpu.Gradients();
    std::vector<at::Tensor> differences, expected_gradients;
    for (const auto& [name, gradient] : gpu.Gradients()) {
      EXPECT_EQ(gradient.scalar_type(), at::kFloat) << name;
      expected_gradients.push_back(gradients.at(name).flatten());
      differences.push_back(gradient.cpu().flatten() - expected_gradients.back());
    }
    const double share = (at::cat(differences).norm() / at::cat(expected_gradients).norm()).item<double>();
    EXPECT_LT(share, precision == v1::PRECISION_BF16 ? 0.05 : 0.02);
  }
}

// The product that adds halves to floats is a kernel of its own (accumulating.cc).
TEST_F(StageCudaTest, AProductOfHalvesIsAddedToFloats) {
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    const at::Tensor weight = at::ones({8, 16}, at::device(kGpu).dtype(type)).set_requires_grad(true);
    weight.set_grad_dtype(at::kFloat);
    const at::Tensor x = at::sin(at::arange(32 * 16, at::kFloat)).reshape({32, 16}).to(kGpu, type);
    for (int i = 0; i < 2; ++i) AccumulatingLinear(x, weight, {}).sum().backward();
    ASSERT_EQ(weight.grad().scalar_type(), at::kFloat);
    const at::Tensor expected = 2 * x.to(at::kFloat).sum(0).expand({8, 16});
    EXPECT_TRUE(at::allclose(weight.grad(), expected, 1e-5, 1e-5));
  }
}

TEST_F(StageCudaTest, RecomputationRepeatsDropoutForEveryCut) {
  const v1::JobSpec spec = Network("0.3");
  LocalPipeline whole(spec, {12}, kGpu);
  const at::Tensor input = input_.to(kGpu), target = target_.to(kGpu);
  const at::Tensor loss = whole.Train(input, target, kSizes);
  const Values gradients = whole.Gradients();
  for (const std::vector<int>& balance : {std::vector<int>{12}, {3, 6, 3}, {9, 1, 2}}) {
    LocalPipeline cut(spec, balance, kGpu);
    EXPECT_TRUE(at::equal(cut.Train(input, target, kSizes, 3), loss));
    for (const auto& [name, gradient] : cut.Gradients()) {
      EXPECT_TRUE(at::allclose(gradient, gradients.at(name), 1e-5, 1e-7)) << name;
    }
  }
}

TEST_F(StageCudaTest, NothingWaitsForTheDevice) {
  const v1::JobSpec spec = Network("0.3");
  LocalPipeline pipeline(spec, {5, 7}, kGpu);
  const at::Tensor input = input_.to(kGpu), target = target_.to(kGpu);
  std::vector<NamedTensor> parameters;
  for (const auto& stage : pipeline.stages()) {
    for (const NamedTensor& named : stage->state()) parameters.push_back(named);
  }
  auto optimizer = Optimizer::Create(spec.train().optimizer(), parameters, kGpu).value();
  pipeline.Train(input, target, kSizes, 2);  // What is loaded at first use may wait.
  ASSERT_TRUE(optimizer->Step(0.01).ok());
  const NoWaiting guard;
  for (int step = 0; step < 3; ++step) {
    pipeline.Train(input, target, kSizes, 2, step);
    ASSERT_TRUE(optimizer->ClipGradients(optimizer->SquaredGradientNorms(12).sum().sqrt(), 1.0).ok());
    const absl::Status stepped = optimizer->Step(0.01);
    ASSERT_TRUE(stepped.ok()) << stepped;
  }
  EXPECT_GT(pipeline.stages()[0]->peak_saved_bytes(), 0);
}

TEST_F(StageCudaTest, OptimizerStateReturnsToTheDevice) {
  const v1::JobSpec spec = Network("0.0");
  LocalPipeline pipeline(spec, {12}, kGpu);
  const auto& parameters = pipeline.stages()[0]->state();
  auto optimizer = Optimizer::Create(spec.train().optimizer(), parameters, kGpu).value();
  pipeline.Train(input_.to(kGpu), target_.to(kGpu), kSizes);
  ASSERT_TRUE(optimizer->Step(0.01).ok());
  Values state;
  for (const NamedTensor& entry : optimizer->State()) state[entry.name] = entry.tensor.to(at::kCPU);
  auto resumed = Optimizer::Create(spec.train().optimizer(), parameters, kGpu).value();
  ASSERT_TRUE(resumed->LoadState(state).ok());
  EXPECT_TRUE(resumed->Step(0.01).ok());
}

TEST_F(StageCudaTest, MeasuresLayers) {
  v1::Inspect request;
  *request.mutable_model() = Network("0.1").model();
  v1::ModelValue& input = *request.add_inputs();
  *input.mutable_shape() = BatchShape({2, 8, 8});
  input.set_dtype(v1::DATA_TYPE_FLOAT32);
  *request.mutable_loss() = Network("0.1").train().loss();
  request.set_profile_micro_batch(16);
  const v1::Inspected result = InspectModel(request, kGpu);
  ASSERT_EQ(result.status().code(), 0) << result.status().message();
  for (const v1::LayerInfo& layer : result.layers()) EXPECT_GT(layer.forward_nanos(), 0) << layer.kind();
  // What draws random numbers is measured as what does not: from graphs, which take a tenth of what launching takes.
  const auto nanos_of = [&](std::string_view kind) {
    const auto found = std::ranges::find(result.layers(), kind, &v1::LayerInfo::kind);
    return found == result.layers().end() ? 0 : found->forward_nanos();
  };
  EXPECT_LT(nanos_of("dropout"), 4 * nanos_of("gelu"));
  EXPECT_GE(result.layers(0).working_bytes_per_sample(), 4 * 8 * 8 * 8) << "its result";
  EXPECT_FALSE(result.layers(0).value_memory().empty());
}

// The gradients of q, k and v, given one of what attention makes of them.
std::vector<at::Tensor> AttentionGradients(const std::vector<at::Tensor>& values, const at::Tensor& gradient) {
  std::vector<at::Tensor> leaves, heads;
  for (const at::Tensor& value : values) {
    leaves.push_back(value.detach().clone().set_requires_grad(true));
    heads.push_back(leaves.back().transpose(1, 2));
  }
  const at::Tensor mixed =
      at::scaled_dot_product_attention(heads[0], heads[1], heads[2], {}, /*dropout_p=*/0.0, /*is_causal=*/true);
  KeepGradientLayout(mixed);
  mixed.backward(gradient);
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& leaf : leaves) gradients.push_back(leaf.grad());
  return gradients;
}

// The first call makes a plan, which the others use.
TEST_F(StageCudaTest, AttentionTakesGradientsOfAnyLayout) {
  const auto random = [](at::IntArrayRef sizes, uint64_t seed) {
    return at::empty(sizes, at::device(kGpu).dtype(at::kBFloat16)).normal_(0, 1, MakeGenerator(kGpu, seed));
  };
  std::vector<at::Tensor> values;
  for (uint64_t i = 0; i < 3; ++i) values.push_back(random({2, 256, 4, 64}, i + 1));
  const at::Tensor gradient = random({2, 4, 256, 64}, 9);
  const std::vector<at::Tensor> expected = AttentionGradients(values, gradient);
  const at::Tensor transposed = gradient.transpose(1, 2).contiguous().transpose(1, 2);
  const at::Tensor strided = at::stack({gradient, gradient}, 2).select(2, 1);
  for (const at::Tensor& given : {transposed, strided, gradient}) {
    const std::vector<at::Tensor> found = AttentionGradients(values, given);
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::allclose(found[i], expected[i], 0.05, 0.05)) << given.strides();
  }
}

}  // namespace
}  // namespace gpipe::worker
