#include "worker/stage/model_stage.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstring>
#include <utility>

#include "tests/unit/worker/local_pipeline.h"

namespace gpipe::worker {
namespace {

// The mean over what it was given, weighed by the samples of each micro-batch. Says how often it was asked for them.
class MeanBySamples : public Loss {
 public:
  explicit MeanBySamples(int* asked) : asked_(asked) {}
  bool has_target() const override { return false; }
  void Begin(const at::Tensor&, int64_t) override {}
  at::Tensor Share(const at::Tensor& output, const at::Tensor&, int64_t) const override { return output.mean(); }
  at::Tensor Count(const at::Tensor&, const at::Tensor& counted) const override {
    ++*asked_;
    return at::scalar_tensor(counted.size(0), at::kDouble);
  }

 private:
  int* const asked_;
};

int stacks = 0;

std::unique_ptr<at::ObserverContext> CountStacks(const at::RecordFunction& function) {
  if (std::strcmp(function.name(), "aten::stack") == 0) ++stacks;
  return nullptr;
}

class WeighedLossTest : public testing::Test {
 protected:
  WeighedLossTest() {
    const v1::JobSpec spec = ParseSpec(R"(
name: test
model: {sequential: [{linear: {in_features: 5, out_features: 3}}]}
train: {loss: {mse: {}}, optimizer: {sgd: {lr: 0.1}}}
)");
    StageParts parts;
    parts.layers = BuildSequential(spec, {.layer_count = 1}).value();
    parts.incoming = {{.name = "input"}};
    parts.outputs = {{.name = "output", .value = "layer.0"}};
    parts.loss = std::make_unique<MeanBySamples>(&asked_);
    parts.training = parts.needs_backward = true;
    parts.held = &held_;
    stage_ = ModelStage::Create(std::move(parts)).value();
  }

  void Train() {
    ASSERT_TRUE(stage_->Begin({0, 0, {2, 2, 2, 1}, true, {}}).ok());
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(Forward(i).ok());
    for (int i = 3; i >= 0; --i) ASSERT_TRUE(Backward(i).ok());
    ASSERT_TRUE(stage_->End().ok());
  }
  at::Tensor Gradient() const { return stage_->state()[0].tensor.grad(); }

  absl::Status Forward(int micro_batch) {
    const at::Tensor input = input_.slice(0, 2 * micro_batch, 2 * micro_batch + 2);
    return stage_->Forward(micro_batch, {input}, ForwardMode::kCheckpointed).status();
  }
  absl::Status Backward(int micro_batch) {
    const absl::Status recomputed = stage_->Recompute(micro_batch);
    return recomputed.ok() ? stage_->Backward(micro_batch, {}).status() : recomputed;
  }

  const at::Tensor input_ = at::sin(at::arange(35, at::kFloat)).reshape({7, 5});
  int asked_ = 0;
  HeldGradients held_;
  std::unique_ptr<ModelStage> stage_;
};

TEST_F(WeighedLossTest, IsWeighedOncePerMiniBatch) {
  const at::CallbackHandle counting =
      at::addThreadLocalCallback(at::RecordFunctionCallback(&CountStacks).scopes({at::RecordScope::FUNCTION}));
  for (const int mini_batch : {1, 2}) {
    asked_ = stacks = 0;
    Train();
    EXPECT_EQ(asked_, 4) << "a recompute does not ask again, mini-batch " << mini_batch;
    EXPECT_EQ(stacks, 1);
    // Of the mean over all outputs: each weight of a row gets the mean input, by three outputs.
    const at::Tensor expected = (input_.mean(0) / 3).expand({3, 5});
    EXPECT_TRUE(at::allclose(Gradient(), expected, 1e-5, 1e-7));
  }
  at::removeCallback(counting);
}

TEST_F(WeighedLossTest, CannotBeWeighedBeforeAllAreForward) {
  ASSERT_TRUE(stage_->Begin({0, 0, {2, 2, 2, 1}, true, {}}).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Forward(i).ok());
  EXPECT_EQ(Backward(2).code(), absl::StatusCode::kFailedPrecondition);
}

// A model may have stages of its own for evaluation, with the same parameters.
TEST_F(WeighedLossTest, EvaluationLeavesGradientsAlone) {
  Train();
  const at::Tensor before = Gradient().clone();
  ASSERT_TRUE(stage_->Begin({0, 0, {2}, false, {}}).ok());
  ASSERT_TRUE(stage_->End().ok());
  ASSERT_TRUE(Gradient().defined());
  EXPECT_TRUE(at::equal(Gradient(), before));
}

// CUDA graphs of another stage that has the parameter write to where the gradient lies.
TEST_F(WeighedLossTest, AGradientThatAnotherStageHoldsStaysWhereItIs) {
  Train();
  const void* place = Gradient().const_data_ptr();
  held_.Hold(stage_->state()[0].tensor);
  ASSERT_TRUE(stage_->Begin({0, 0, {2}, true, {}}).ok());
  ASSERT_TRUE(stage_->End().ok());
  ASSERT_TRUE(Gradient().defined());
  EXPECT_EQ(Gradient().const_data_ptr(), place);
  EXPECT_TRUE(at::equal(Gradient(), at::zeros({3, 5})));
  EXPECT_FALSE(stage_->state()[1].tensor.grad().defined()) << "the bias, which nobody holds";

  held_.LetGo(stage_->state()[0].tensor);
  ASSERT_TRUE(stage_->Begin({0, 0, {2}, true, {}}).ok());
  ASSERT_TRUE(stage_->End().ok());
  EXPECT_FALSE(Gradient().defined());
}

TEST_F(WeighedLossTest, AStageHoldsAndLetsGoOnce) {
  stage_->KeepGradients(true);
  stage_->KeepGradients(true);
  EXPECT_TRUE(held_.Has(stage_->state()[1].tensor));
  stage_->KeepGradients(false);
  EXPECT_FALSE(held_.Has(stage_->state()[1].tensor));
}

// Two forward passes may be open at once, and go back in any order; gradients add up.
TEST_F(WeighedLossTest, AForwardWaitsForItsBackward) {
  Train();
  const at::Tensor once = Gradient().clone();
  const MiniBatch mini_batch{.micro_batch_sizes = {2, 2, 2, 1}, .training = true, .accumulates = true};
  for (const int64_t id : {7, 8}) {
    ASSERT_TRUE(stage_->Begin(mini_batch).ok());
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(Forward(i).ok());
    ASSERT_TRUE(stage_->Suspend(id).ok());
  }
  EXPECT_TRUE(absl::IsFailedPrecondition(stage_->Resume(9)));
  for (const int64_t id : {8, 7}) {
    ASSERT_TRUE(stage_->Resume(id).ok());
    for (int i = 3; i >= 0; --i) ASSERT_TRUE(Backward(i).ok());
    ASSERT_TRUE(stage_->End().ok());
  }
  EXPECT_TRUE(at::allclose(Gradient(), 3 * once));
  EXPECT_TRUE(absl::IsFailedPrecondition(stage_->Resume(7))) << "it went back";
}

TEST_F(WeighedLossTest, AForwardThatIsDroppedIsGone) {
  ASSERT_TRUE(stage_->Begin({.micro_batch_sizes = {2}, .training = true, .accumulates = true}).ok());
  ASSERT_TRUE(Forward(0).ok());
  ASSERT_TRUE(stage_->Suspend(1).ok());
  ASSERT_TRUE(stage_->Drop(1).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(stage_->Drop(1)));
  EXPECT_TRUE(absl::IsFailedPrecondition(stage_->Resume(1)));
}

}  // namespace
}  // namespace gpipe::worker
