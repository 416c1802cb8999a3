// A stage that is recorded and replayed against the same stage as it is. Needs a CUDA device.
#include "worker/stage/captured_stage.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/worker/local_pipeline.h"
#include "worker/model/graph_pool.h"
#include "worker/model/random.h"
#include "worker/stage/held_gradients.h"
#include "worker/stage/optimizer.h"

namespace gpipe::worker {
namespace {

using pipeline::Direction;

const c10::Device kGpu(c10::kCUDA, 0);

// Of the device, but for what LibTorch keeps.
int64_t FreeBytes() {
  c10::cuda::CUDACachingAllocator::emptyCache();
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

v1::JobSpec Network(const std::string& capture, bool deferred) {
  return MixedNetwork("0.3",
                      absl::StrCat("{capture: ", capture, ", deferred_batch_norm: ", deferred ? "true" : "false", "}"));
}

// A pipeline and what updates it.
class Trainer {
 public:
  explicit Trainer(const v1::JobSpec& spec, const std::vector<int>& balance = {5, 3, 4})
      : pipeline(spec, balance, kGpu) {
    std::vector<NamedTensor> parameters;
    for (const auto& stage : pipeline.stages()) {
      parameters.insert(parameters.end(), stage->state().begin(), stage->state().end());
    }
    optimizer_ = Optimizer::Create(spec.train().optimizer(), parameters, kGpu).value();
  }

  at::Tensor Step(int64_t step, const std::vector<int64_t>& sizes, int checkpointed) {
    int64_t samples = 0;
    for (const int64_t size : sizes) samples += size;
    const at::Tensor input = at::sin(at::arange(samples * 128, at::kFloat).add(static_cast<double>(step)));
    const at::Tensor target = at::arange(samples, at::kLong).add(step).remainder(5);
    const at::Tensor loss =
        pipeline.Train(input.reshape({samples, 2, 8, 8}).to(kGpu), target.to(kGpu), sizes, checkpointed, step);
    EXPECT_TRUE(optimizer_->Step(0.01).ok());
    return loss;
  }

  LocalPipeline pipeline;

 private:
  std::unique_ptr<Optimizer> optimizer_;
};

void ExpectEqual(const Values& found, const Values& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected) EXPECT_TRUE(at::equal(found.at(name), tensor)) << name;
}

class CapturedStageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "no CUDA device";
    at::globalContext().setDeterministicCuDNN(true);
    stream_.emplace(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, 0));
  }

  std::optional<c10::cuda::CUDAStreamGuard> stream_;  // Nothing can be recorded on the default one.
};

TEST_F(CapturedStageTest, StepsAreThePlainOnesBitForBit) {
  for (const bool deferred : {false, true}) {
    for (const int checkpointed : {0, 2, 3}) {
      Trainer plain(Network("never", deferred)), captured(Network("auto", deferred));
      for (int step = 0; step < 5; ++step) {
        const at::Tensor expected = plain.Step(step, {4, 4, 2}, checkpointed);
        EXPECT_TRUE(at::equal(captured.Step(step, {4, 4, 2}, checkpointed), expected)) << step;
        ExpectEqual(captured.pipeline.Gradients(), plain.pipeline.Gradients());
        ExpectEqual(captured.pipeline.State(), plain.pipeline.State());
      }
      EXPECT_GT(captured.pipeline.stages()[0]->peak_saved_bytes(), 0);
    }
  }
}

// The gradients of weights are added up in fp32 by the product with which they are made.
TEST_F(CapturedStageTest, StepsInMixedPrecisionAreThePlainOnes) {
  for (const v1::Precision precision : {v1::PRECISION_BF16, v1::PRECISION_FP16}) {
    v1::JobSpec plain_spec = Network("never", false), captured_spec = Network("auto", false);
    for (v1::JobSpec* spec : {&plain_spec, &captured_spec}) spec->mutable_train()->set_precision(precision);
    Trainer plain(plain_spec), captured(captured_spec);
    const at::Tensor scale = at::full({}, 256.0f, kGpu);
    for (Trainer* trainer : {&plain, &captured}) trainer->pipeline.SetLossScale(scale);
    for (int step = 0; step < 4; ++step) {
      if (step == 3) scale.fill_(128.0f);  // A replay reads what it is now.
      const at::Tensor expected = plain.Step(step, {4, 4, 2}, 1);
      EXPECT_TRUE(at::equal(captured.Step(step, {4, 4, 2}, 1), expected)) << step;
      ExpectEqual(captured.pipeline.Gradients(), plain.pipeline.Gradients());
      ExpectEqual(captured.pipeline.State(), plain.pipeline.State());
    }
    for (const auto& [name, gradient] : captured.pipeline.Gradients()) EXPECT_EQ(gradient.scalar_type(), at::kFloat);
  }
}

// As at the end of an epoch, and with evaluations between steps.
TEST_F(CapturedStageTest, MiniBatchesOfTwoSizesAndEvaluationsTakeTurns) {
  Trainer plain(Network("never", false)), captured(Network("auto", false));
  const at::Tensor input = at::cos(at::arange(4 * 128, at::kFloat)).reshape({4, 2, 8, 8}).to(kGpu);
  const at::Tensor target = at::arange(4, at::kLong).to(kGpu);
  for (int step = 0; step < 9; ++step) {
    const std::vector<int64_t> sizes = step % 3 == 2 ? std::vector<int64_t>{4, 2} : std::vector<int64_t>{4, 4, 2};
    const at::Tensor expected = plain.Step(step, sizes, 1);
    EXPECT_TRUE(at::equal(captured.Step(step, sizes, 1), expected)) << step;
    ExpectEqual(captured.pipeline.Evaluate(input, target, {2, 2}), plain.pipeline.Evaluate(input, target, {2, 2}));
  }
  ExpectEqual(captured.pipeline.State(), plain.pipeline.State());
}

// One parameter times the input; counts what is asked of it, and where it is told to, reads a number from the device.
class Product : public Stage {
 public:
  Product(bool reads_forward, bool reads_backward) : reads_forward_(reads_forward), reads_backward_(reads_backward) {
    state_.push_back({"w", 0, at::full({3}, 2.0, at::device(kGpu)).set_requires_grad(true), true});
  }

  const std::vector<CrossingValue>& incoming() const override { return values_; }
  const std::vector<CrossingValue>& outgoing() const override { return values_; }
  const std::vector<OutputValue>& outputs() const override { return outputs_; }
  const std::vector<NamedTensor>& state() const override { return state_; }
  absl::Status Begin(MiniBatch mini_batch) override {
    EXPECT_FALSE(std::exchange(open_, true));
    at::Tensor& gradient = state_[0].tensor.mutable_grad();
    if (mini_batch.accumulates) return absl::OkStatus();
    if (!keep_) gradient.reset();
    if (gradient.defined()) gradient.zero_();
    return absl::OkStatus();
  }
  absl::StatusOr<PassResults> Forward(int, std::vector<at::Tensor> inputs, ForwardMode) override {
    ++forwards;
    scratch_ = at::empty({scratch_bytes}, at::device(kGpu).dtype(at::kByte));
    if (std::exchange(has_no_room, false)) return absl::ResourceExhaustedError("out of memory");
    if (reads_forward_) Read(inputs.at(0));
    return PassResults{.values = {(state_[0].tensor * inputs.at(0)).detach()}};
  }
  absl::Status Recompute(int) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<at::Tensor>> Backward(int, std::vector<at::Tensor> gradients) override {
    if (reads_backward_) Read(gradients.at(0));
    at::Tensor& gradient = state_[0].tensor.mutable_grad();
    gradient = gradient.defined() ? gradient.add_(gradients.at(0)) : gradients.at(0).clone();
    return std::vector<at::Tensor>{gradients.at(0) * 2};
  }
  absl::Status End() override {
    EXPECT_TRUE(std::exchange(open_, false));
    scratch_.reset();
    return absl::OkStatus();
  }
  absl::Status Abandon() override {
    scratch_.reset();
    open_ = false;
    return absl::OkStatus();
  }
  absl::Status Suspend(int64_t id) override {
    suspended_.insert(id);
    return End();
  }
  absl::Status Resume(int64_t id) override {
    if (suspended_.erase(id) == 0) return absl::FailedPreconditionError("no such forward");
    EXPECT_FALSE(std::exchange(open_, true));
    AttachGradients();
    return absl::OkStatus();
  }
  absl::Status Drop(int64_t id) override {
    return suspended_.erase(id) > 0 ? absl::OkStatus() : absl::FailedPreconditionError("no such forward");
  }
  void KeepGradients(bool keep) override {
    if (std::exchange(keep_, keep) == keep) return;
    keep ? held_.Hold(state_[0].tensor) : held_.LetGo(state_[0].tensor);
  }
  void AttachGradients() override { held_.Attach(state_[0].tensor); }
  int64_t peak_saved_bytes() const override { return 7; }

  int forwards = 0;
  bool has_no_room = false;    // For the next forward.
  int64_t scratch_bytes = 16;  // That a mini-batch takes.

 private:
  static void Read(const at::Tensor& tensor) { EXPECT_GE(tensor.sum().item<double>(), 0); }

  const bool reads_forward_, reads_backward_;
  bool keep_ = false;
  HeldGradients held_;
  std::set<int64_t> suspended_;
  at::Tensor scratch_;
  bool open_ = false;
  std::vector<NamedTensor> state_;
  const std::vector<CrossingValue> values_ = {{.name = "x", .requires_grad = true}};
  const std::vector<OutputValue> outputs_;
};

void RunSteps(CapturedStage& stage, int steps) {
  for (int step = 0; step < steps; ++step) {
    ASSERT_TRUE(stage.Begin({1, step, {3}, true, {}}).ok());
    const at::Tensor x = at::full({3}, step + 1.0, at::device(kGpu));
    const absl::StatusOr<PassResults> forward = stage.Forward(0, {x}, ForwardMode::kKeep);
    ASSERT_TRUE(forward.ok()) << forward.status();
    EXPECT_TRUE(at::equal(forward->values.at(0), x * 2)) << step;
    const absl::StatusOr<std::vector<at::Tensor>> backward = stage.Backward(0, {x});
    ASSERT_TRUE(backward.ok()) << backward.status();
    EXPECT_TRUE(at::equal(backward->at(0), x * 2)) << step;
    EXPECT_TRUE(at::equal(stage.state()[0].tensor.grad(), x)) << step;
    ASSERT_TRUE(stage.End().ok());
  }
}

at::Tensor Full(double value) { return at::full({3}, value, at::device(kGpu)); }

// A forward pass of x, of which nothing is expected yet.
void RunForward(CapturedStage& stage, int64_t id, const at::Tensor& x) {
  ASSERT_TRUE(
      stage.Begin({.seed = 1, .step = id, .micro_batch_sizes = {3}, .training = true, .accumulates = true}).ok());
  const absl::StatusOr<PassResults> forward = stage.Forward(0, {x}, ForwardMode::kKeep);
  ASSERT_TRUE(forward.ok()) << forward.status();
  EXPECT_TRUE(at::equal(forward->values.at(0), x * 2)) << id;
  ASSERT_TRUE(stage.Suspend(id).ok());
}

void RunBackward(CapturedStage& stage, int64_t id, const at::Tensor& gradient) {
  ASSERT_TRUE(stage.Resume(id).ok());
  const absl::StatusOr<std::vector<at::Tensor>> backward = stage.Backward(0, {gradient});
  ASSERT_TRUE(backward.ok()) << backward.status();
  EXPECT_TRUE(at::equal(backward->at(0), gradient * 2)) << id;
  ASSERT_TRUE(stage.End().ok());
}

// As a client asks for it: gradients add up until it lets go of them, or puts others there.
TEST_F(CapturedStageTest, SuspendedMiniBatchesAreReplayed) {
  auto product = std::make_unique<Product>(false, false);
  const Product& inner = *product;
  CapturedStage stage(std::move(product), 0, kGpu);
  at::Tensor& gradient = stage.state()[0].tensor.mutable_grad();
  double expected = 0;
  for (int step = 0; step < 9; ++step) {
    if (step % 3 == 1) {
      gradient.reset();
      expected = 0;
    }
    if (step == 6) {
      gradient = Full(100);
      expected = 100;
    }
    RunForward(stage, step, Full(step + 1));
    EXPECT_EQ(gradient.defined(), step > 0 && step % 3 != 1) << step;
    RunBackward(stage, step, Full(step + 1));
    expected += step + 1;
    EXPECT_TRUE(at::equal(gradient, Full(expected))) << step;
  }
  EXPECT_EQ(inner.forwards, 2);  // Watched and recorded.
}

TEST_F(CapturedStageTest, WhileOneIsSuspendedOthersRunAsTheyAre) {
  auto product = std::make_unique<Product>(false, false);
  const Product& inner = *product;
  CapturedStage stage(std::move(product), 0, kGpu);
  int64_t id = 0;
  RunForward(stage, id, Full(1));
  ASSERT_TRUE(stage.Drop(id).ok());  // Watched by half, which is forgotten.
  for (int step = 0; step < 3; ++step) {
    const int64_t first = ++id, second = ++id;
    stage.state()[0].tensor.mutable_grad().reset();
    RunForward(stage, first, Full(1));
    RunForward(stage, second, Full(2));
    ASSERT_TRUE(stage.Begin({1, 0, {3}, false, {}}).ok());  // A prediction.
    EXPECT_TRUE(stage.Forward(0, {Full(5)}, ForwardMode::kInference).ok());
    ASSERT_TRUE(stage.End().ok());
    RunBackward(stage, second, Full(2));
    if (step == 1) {
      ASSERT_TRUE(stage.Drop(first).ok());
      EXPECT_EQ(stage.Resume(first).code(), absl::StatusCode::kFailedPrecondition);
      continue;
    }
    RunBackward(stage, first, Full(1));
    EXPECT_TRUE(at::equal(stage.state()[0].tensor.grad(), Full(3))) << step;
  }
  // The one dropped, three times the second and the prediction, the first watched and recorded.
  EXPECT_EQ(inner.forwards, 1 + 3 * 2 + 2);
}

// As of a script that looks at an output before it trains, and keeps it.
TEST_F(CapturedStageTest, OneThatStaysSuspendedKeepsNoOtherFromBeingReplayed) {
  auto product = std::make_unique<Product>(false, false);
  const Product& inner = *product;
  CapturedStage stage(std::move(product), 0, kGpu);
  at::Tensor& gradient = stage.state()[0].tensor.mutable_grad();
  RunForward(stage, 0, Full(7));
  for (int step = 1; step < 6; ++step) {
    gradient.reset();
    RunForward(stage, step, Full(step));
    RunBackward(stage, step, Full(step));
    EXPECT_TRUE(at::equal(gradient, Full(step))) << step;
  }
  EXPECT_EQ(inner.forwards, 4);  // The one that stays, as it is, watched, recorded.
  RunBackward(stage, 0, Full(7));
  EXPECT_TRUE(at::equal(gradient, Full(5 + 7)));
}

TEST_F(CapturedStageTest, IsAskedTwice) {
  auto product = std::make_unique<Product>(false, false);
  const Product& inner = *product;
  CapturedStage stage(std::move(product), 0, kGpu);
  RunSteps(stage, 6);
  EXPECT_EQ(inner.forwards, 2);  // Watched and recorded.
  EXPECT_EQ(stage.peak_saved_bytes(), 7);
}

int copies = 0;

std::unique_ptr<at::ObserverContext> CountCopies(const at::RecordFunction& function) {
  if (std::strcmp(function.name(), "aten::copy_") == 0) ++copies;
  return nullptr;
}

// So that it need not be copied: the graphs find it there, each micro-batch's in a place of its own.
TEST_F(CapturedStageTest, WhatIsPutWhereItIsReadIsNotCopied) {
  CapturedStage stage(std::make_unique<Product>(false, false), 0, kGpu);
  for (int step = 0; step < 4; ++step) {
    const auto room = [&](Direction pass, int micro_batch) {
      const at::TensorList found = stage.Room(pass, micro_batch);
      EXPECT_EQ(found.size(), step > 0 ? 1u : 0u) << step << " " << micro_batch;
      return found.empty() ? Full(0) : found[0];
    };
    ASSERT_TRUE(stage.Begin({1, step, {3, 3}, true, {}}).ok());
    EXPECT_TRUE(stage.Room(Direction::kForward, 2).empty()) << "no such micro-batch";
    const std::vector<at::Tensor> given = {room(Direction::kForward, 0).fill_(step + 1),
                                           room(Direction::kForward, 1).fill_(step + 5)};
    EXPECT_NE(given[0].data_ptr(), given[1].data_ptr());
    copies = 0;
    const at::CallbackHandle counting =
        at::addThreadLocalCallback(at::RecordFunctionCallback(&CountCopies).scopes({at::RecordScope::FUNCTION}));
    std::vector<at::Tensor> made;
    for (int i = 0; i < 2; ++i) {
      const absl::StatusOr<PassResults> forward = stage.Forward(i, {given[i]}, ForwardMode::kCheckpointed);
      ASSERT_TRUE(forward.ok()) << forward.status();
      made.push_back(forward->values.at(0));
    }
    EXPECT_TRUE(stage.Room(Direction::kForward, 1).empty()) << "is past";
    for (int i = 1; i >= 0; --i) {
      const at::Tensor gradient = room(Direction::kBackward, i).fill_(i + 1);  // Received before this.
      ASSERT_TRUE(stage.Recompute(i).ok());
      const auto backward = stage.Backward(i, {gradient});
      ASSERT_TRUE(backward.ok()) << backward.status();
      made.push_back(backward->at(0));
    }
    if (step > 0) {
      EXPECT_EQ(copies, 0) << step;
    }
    at::removeCallback(counting);
    const double expected[] = {2.0 * (step + 1), 2.0 * (step + 5), 4, 2};
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(at::equal(made[i], Full(expected[i]))) << step << " " << i;
    ASSERT_TRUE(stage.End().ok());
  }
}

// Values of one mini-batch may still be on their way when the next one is computed.
TEST_F(CapturedStageTest, WithoutTrainingEachMiniBatchHasValuesOfItsOwn) {
  auto product = std::make_unique<Product>(false, false);
  const Product& inner = *product;
  CapturedStage stage(std::move(product), 0, kGpu);
  std::vector<at::Tensor> made;
  for (int step = 0; step < 5; ++step) {
    ASSERT_TRUE(stage.Begin({1, step, {3}, false, {}}).ok());
    const at::Tensor x = at::full({3}, step + 1.0, at::device(kGpu));
    const absl::StatusOr<PassResults> forward = stage.Forward(0, {x}, ForwardMode::kInference);
    ASSERT_TRUE(forward.ok()) << forward.status();
    made.push_back(forward->values.at(0));
    ASSERT_TRUE(stage.End().ok());
  }
  EXPECT_EQ(inner.forwards, 2);  // Watched and recorded.
  for (int step = 0; step < 5; ++step) EXPECT_TRUE(at::equal(made[step], at::full_like(made[step], 2.0 * (step + 1))));
  RunSteps(stage, 3);  // Training has recordings of its own.
  EXPECT_EQ(inner.forwards, 4);
}

TEST_F(CapturedStageTest, RecordingsGoWhereAnEvaluationNeedsTheirMemory) {
  auto product = std::make_unique<Product>(false, false);
  Product& inner = *product;
  CapturedStage stage(std::move(product), 0, kGpu);
  RunSteps(stage, 3);
  ASSERT_TRUE(stage.Begin({1, 3, {3}, false, {}}).ok());
  inner.has_no_room = true;
  const at::Tensor x = at::ones({3}, at::device(kGpu));
  const absl::StatusOr<PassResults> made = stage.Forward(0, {x}, ForwardMode::kInference);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(at::equal(made->values.at(0), x * 2));
  ASSERT_TRUE(stage.End().ok());
  inner.forwards = 0;
  RunSteps(stage, 4);
  EXPECT_EQ(inner.forwards, 2);  // Watched and recorded again.
}

// A pool keeps what its recordings had as long as it lives.
TEST_F(CapturedStageTest, WhatRecordingsHadGoesBackToTheDevice) {
  constexpr int64_t kScratch = int64_t{1} << 30;
  auto product = std::make_unique<Product>(false, false);
  Product& inner = *product;
  CapturedStage stage(std::move(product), 0, kGpu);
  const int64_t before = FreeBytes();
  inner.scratch_bytes = kScratch;
  RunSteps(stage, 3);
  EXPECT_LT(FreeBytes(), before - kScratch / 2);
  ASSERT_TRUE(stage.Begin({1, 3, {3}, false, {}}).ok());
  inner.scratch_bytes = 16;
  inner.has_no_room = true;
  ASSERT_TRUE(stage.Forward(0, {at::ones({3}, at::device(kGpu))}, ForwardMode::kInference).ok());
  EXPECT_GT(FreeBytes(), before - kScratch / 2);
}

TEST_F(CapturedStageTest, WhatABrokenRecordingHadGoesBackToTheDevice) {
  constexpr int64_t kScratch = int64_t{1} << 30;
  auto product = std::make_unique<Product>(false, false);
  Product& inner = *product;
  CapturedStage stage(std::move(product), 0, kGpu);
  const int64_t before = FreeBytes();
  RunSteps(stage, 1);
  inner.scratch_bytes = kScratch;
  inner.has_no_room = true;  // After the recording has got that.
  RunSteps(stage, 1);
  EXPECT_GT(FreeBytes(), before - kScratch / 2);
}

// `item()` breaks a recording in the middle.
TEST_F(CapturedStageTest, WhatReadsFromTheDeviceRunsAsItIs) {
  for (const bool backward : {false, true}) {
    auto product = std::make_unique<Product>(!backward, backward);
    const Product& inner = *product;
    CapturedStage stage(std::move(product), 0, kGpu);
    RunSteps(stage, 6);
    EXPECT_EQ(inner.forwards, 7);  // One of them recorded in vain.
  }
  // A broken recording leaves nothing behind.
  EXPECT_TRUE(at::rand({100}, at::device(kGpu)).lt(1).all().item<bool>());
  CapturedStage next(std::make_unique<Product>(false, false), 1, kGpu);
  RunSteps(next, 3);
}

// As of operators late in a long program.
TEST_F(CapturedStageTest, RandomNumbersOfPlacesFarApartAreThePlainOnes) {
  const LayerContext context{.training = true, .seed = 5, .step = 3, .micro_batch = 2};
  const auto draw = [&](uint64_t place) {
    at::Tensor drawn = at::empty({1000}, at::device(kGpu));
    DrawSeeded(kGpu, context, place, [&](const at::Generator& generator) { drawn.uniform_(0, 1, generator); });
    return drawn;
  };
  const std::vector<uint64_t> places = {0, 1, 5000, uint64_t{1} << 30};
  std::vector<at::Tensor> recorded, plain;
  GraphPool pool(kGpu);
  at::cuda::CUDAGraph graph;
  for (const uint64_t place : places) plain.push_back(draw(place));
  const absl::Status status = pool.Record(graph, [&] {
    for (const uint64_t place : places) recorded.push_back(draw(place));
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
  DrawSeeded(kGpu, context, 0, [&](const at::Generator&) { graph.replay(); });
  for (size_t i = 0; i < places.size(); ++i) {
    EXPECT_TRUE(at::equal(recorded[i], plain[i])) << places[i];
    if (i > 0) {
      EXPECT_FALSE(at::equal(plain[i], plain[i - 1])) << places[i];
    }
  }
}

TEST_F(CapturedStageTest, AnotherOrderOrSizeIsAnError) {
  CapturedStage stage(std::make_unique<Product>(false, false), 0, kGpu);
  RunSteps(stage, 3);
  ASSERT_TRUE(stage.Begin({1, 4, {3}, true, {}}).ok());
  const at::Tensor x = at::ones({3}, at::device(kGpu));
  EXPECT_EQ(stage.Backward(0, {x}).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(stage.Forward(0, {at::ones({1}, at::device(kGpu))}, ForwardMode::kKeep).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gpipe::worker
