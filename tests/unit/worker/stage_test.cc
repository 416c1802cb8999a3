#include "worker/stage/stage.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "absl/strings/str_cat.h"
#include "tests/unit/worker/local_pipeline.h"
#include "worker/model/segment.h"

namespace gpipe::worker {
namespace {

using ::testing::HasSubstr;
using Sizes = std::vector<int64_t>;

constexpr int64_t kSamples = 7;

std::string Training(const std::string& loss, const std::string& more = "") {
  return "train: {loss: {" + loss + "}, optimizer: {sgd: {lr: 0.1}}" + (more.empty() ? "" : ", " + more) + "}\n";
}

// Seven layers without randomness or batch statistics, with a skip over the middle.
std::string Network(int classes) {
  return absl::StrCat(R"(
name: test
model:
  init_seed: 3
  sequential:
    - linear: {in_features: 5, out_features: 8}
    - stash: {name: x}
    - gelu: {}
    - linear: {in_features: 8, out_features: 8}
    - pop_add: {name: x}
    - layer_norm: {normalized_shape: [8]}
    - linear: {in_features: 8, out_features: )",
                      classes, "}\n");
}

struct LossCase {
  std::string name;
  std::string loss;
  int classes;
  at::Tensor target;
  at::Tensor (*mean)(const at::Tensor& output, const at::Tensor& target);
};

std::vector<LossCase> LossCases() {
  const at::Tensor classes = at::tensor({0, 3, 1, 2, 2, 0, 3}, at::kLong);
  const at::Tensor holes = at::tensor({0, 3, 1, 1, 2, 1, 3}, at::kLong);
  return {
      {"cross_entropy", "cross_entropy: {}", 4, classes,
       [](const at::Tensor& o, const at::Tensor& t) { return at::cross_entropy_loss(o, t); }},
      {"ignore_and_smooth", "cross_entropy: {label_smoothing: 0.1, ignore_index: 1}", 4, holes,
       [](const at::Tensor& o, const at::Tensor& t) {
         return at::cross_entropy_loss(o, t, {}, at::Reduction::Mean, 1, 0.1);
       }},
      {"mse", "mse: {}", 3, at::linspace(-1, 1, 21).reshape({7, 3}),
       [](const at::Tensor& o, const at::Tensor& t) { return at::mse_loss(o, t); }},
      {"bce_with_logits", "bce_with_logits: {}", 2, at::linspace(0, 1, 14).reshape({7, 2}),
       [](const at::Tensor& o, const at::Tensor& t) { return at::binary_cross_entropy_with_logits(o, t); }},
      {"mse_to_doubles", "mse: {}", 3, at::linspace(-1, 1, 21, at::kDouble).reshape({7, 3}),
       [](const at::Tensor& o, const at::Tensor& t) { return at::mse_loss(o.to(at::kDouble), t); }},
      {"mse_to_whole_numbers", "mse: {}", 3, at::arange(21, at::kInt).reshape({7, 3}),
       [](const at::Tensor& o, const at::Tensor& t) { return at::mse_loss(o, t.to(at::kFloat)); }},
      {"bce_to_halves", "bce_with_logits: {}", 2, at::linspace(0, 1, 14).reshape({7, 2}).to(at::kHalf),
       [](const at::Tensor& o, const at::Tensor& t) {
         return at::binary_cross_entropy_with_logits(o, t.to(at::kFloat));
       }},
      {"cross_entropy_of_bytes", "cross_entropy: {}", 4, classes.to(at::kByte),
       [](const at::Tensor& o, const at::Tensor& t) { return at::cross_entropy_loss(o, t.to(at::kLong)); }},
      {"cross_entropy_of_probabilities", "cross_entropy: {label_smoothing: 0.1}", 4,
       at::sin(at::arange(28, at::kFloat)).reshape({7, 4}).softmax(1),
       [](const at::Tensor& o, const at::Tensor& t) {
         return at::cross_entropy_loss(o, t, {}, at::Reduction::Mean, -100, 0.1);
       }},
  };
}

at::Tensor Input() { return at::sin(at::arange(kSamples * 5, at::kFloat)).reshape({kSamples, 5}); }

// The whole model and the whole mini-batch at once, by autograd.
struct Oracle {
  Oracle(const v1::JobSpec& spec, const LossCase& c) {
    LocalPipeline pipeline(spec, {7});
    auto layers = BuildSequential(spec, {.layer_count = 7});
    for (const ModelLayer& layer : *layers) {
      for (const LayerTensor& entry : layer.layer->tensors()) {
        entry.tensor.set_requires_grad(true);
        parameters[absl::StrCat(layer.index, ".", entry.name)] = entry.tensor;
      }
    }
    const auto whole = Segment::Create(*std::move(layers), {"input"}, {"layer.6"});
    loss = c.mean(whole->Run({.training = true}, {Input()})->front(), c.target);
    loss.backward();
  }
  at::Tensor loss;
  Values parameters;
};

class LossTest : public ::testing::TestWithParam<LossCase> {};

TEST_P(LossTest, EqualsTheMeanOverTheWholeMiniBatch) {
  const LossCase& c = GetParam();
  const v1::JobSpec spec = ParseSpec(Network(c.classes) + Training(c.loss));
  const Oracle oracle(spec, c);
  for (const Sizes& sizes : {Sizes{7}, Sizes{4, 3}, Sizes{3, 3, 1}, Sizes{1, 1, 1, 1, 1, 1, 1}}) {
    for (const std::vector<int>& balance : {std::vector<int>{7}, {3, 4}, {2, 2, 3}, {1, 1, 1, 1, 1, 1, 1}}) {
      for (const int checkpointed : {0, static_cast<int>(sizes.size()) - 1, static_cast<int>(sizes.size())}) {
        LocalPipeline pipeline(spec, balance);
        const at::Tensor loss = pipeline.Train(Input(), c.target, sizes, checkpointed);
        EXPECT_NEAR(loss.item<double>(), oracle.loss.item<double>(), 1e-5);
        for (const auto& [name, gradient] : pipeline.Gradients()) {
          EXPECT_TRUE(at::allclose(gradient, oracle.parameters.at(name).grad(), 1e-4, 1e-6)) << name;
        }
        EXPECT_EQ(pipeline.Gradients().size(), oracle.parameters.size());
      }
    }
  }
}

TEST_P(LossTest, EvaluatesTheSameMean) {
  const LossCase& c = GetParam();
  const v1::JobSpec spec = ParseSpec(Network(c.classes) + Training(c.loss));
  const Oracle oracle(spec, c);
  const Values values = LocalPipeline(spec, {2, 5}).Evaluate(Input(), c.target, {4, 2, 1});
  EXPECT_NEAR(values.at("loss").item<double>(), oracle.loss.item<double>(), 1e-5);
  const at::Tensor& output = values.at("output");
  EXPECT_EQ(output.size(0), kSamples);
  EXPECT_EQ(values.contains("hits"), c.loss.starts_with("cross_entropy"));
  if (!values.contains("hits")) return;
  int64_t hits = 0, counted = 0;
  for (int64_t i = 0; i < kSamples; ++i) {
    const auto target = (c.target.dim() == 2 ? c.target[i].argmax() : c.target[i]).item<int64_t>();
    const bool counts = c.name != "ignore_and_smooth" || target != 1;
    counted += counts ? 1 : 0;
    hits += counts && output[i].argmax().item<int64_t>() == target ? 1 : 0;
  }
  const at::Tensor found = values.at("hits").view({-1, 2}).sum(0);  // Of each micro-batch.
  EXPECT_TRUE(found.equal(at::tensor({hits, counted}))) << found;
}

INSTANTIATE_TEST_SUITE_P(Losses, LossTest, ::testing::ValuesIn(LossCases()),
                         [](const auto& info) { return info.param.name; });

// Dropout, attention, batch norm and values used three times: everything whose bits could depend on the cut.
const char kBitwiseNetwork[] = R"(
name: test
model:
  sequential:
    - embedding: {num_embeddings: 9, embedding_dim: 8}
    - stash: {name: a}
    - stash: {name: b}
    - transformer_encoder_layer: {d_model: 8, nhead: 2, dim_feedforward: 16, dropout: 0.2}
    - pop_add: {name: b}
    - dropout: {p: 0.3}
    - transformer_encoder_layer: {d_model: 8, nhead: 4, dim_feedforward: 16, norm_first: true, activation: gelu}
    - pop_cat: {name: a, dim: 2}
    - flatten: {}
    - linear: {in_features: 64, out_features: 6}
    - batch_norm_1d: {num_features: 6}
    - linear: {in_features: 6, out_features: 4}
)";

TEST(StageTest, LossAndGradientsAreBitIdenticalForEveryCutAndCheckpointMode) {
  const v1::JobSpec spec = ParseSpec(kBitwiseNetwork + Training("cross_entropy: {}"));
  const at::Tensor input = at::arange(40, at::kLong).remainder(9).reshape({10, 4});
  const at::Tensor target = at::arange(10, at::kLong).remainder(4);
  const Sizes sizes = {4, 4, 2};
  LocalPipeline whole(spec, {12});
  const at::Tensor loss = whole.Train(input, target, sizes, 0, /*step=*/5);
  const Values gradients = whole.Gradients();
  for (const std::vector<int>& balance :
       {std::vector<int>{12}, {2, 10}, {3, 3, 3, 3}, {4, 1, 7}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}) {
    for (const int checkpointed : {0, 2, 3}) {
      LocalPipeline cut(spec, balance);
      EXPECT_TRUE(at::equal(cut.Train(input, target, sizes, checkpointed, 5), loss));
      for (const auto& [name, gradient] : cut.Gradients()) EXPECT_TRUE(at::equal(gradient, gradients.at(name))) << name;
      for (const auto& [name, tensor] : cut.State()) EXPECT_TRUE(at::equal(tensor, whole.State().at(name))) << name;
    }
  }
  EXPECT_FALSE(at::equal(LocalPipeline(spec, {12}).Train(input, target, sizes, 0, 6), loss)) << "dropout must change";
}

TEST(StageTest, StateIsThatOfSequentialsStateDict) {
  const v1::JobSpec spec = ParseSpec(Network(3) + Training("mse: {}"));
  LocalPipeline pipeline(spec, {3, 4});
  std::vector<std::string> names;
  for (const auto& stage : pipeline.stages()) {
    for (const NamedTensor& named : stage->state()) names.push_back(named.name);
  }
  EXPECT_THAT(names, ::testing::ElementsAre("0.weight", "0.bias", "3.weight", "3.bias", "5.weight", "5.bias",
                                            "6.weight", "6.bias"));
}

TEST(StageTest, FrozenParametersGetNoGradientAndPassItOn) {
  const LossCase c = LossCases()[2];
  const v1::JobSpec spec = ParseSpec(Network(3) + Training(c.loss, "freeze: [\"3.\", \"6.bias\"]"));
  LocalPipeline pipeline(spec, {3, 1, 3});
  pipeline.Train(Input(), c.target, {4, 3}, 1);
  const Oracle oracle(ParseSpec(Network(3) + Training(c.loss)), c);
  const Values gradients = pipeline.Gradients();
  EXPECT_FALSE(gradients.contains("3.weight"));
  EXPECT_FALSE(gradients.contains("6.bias"));
  EXPECT_TRUE(at::allclose(gradients.at("0.weight"), oracle.parameters.at("0.weight").grad(), 1e-4, 1e-6));
  EXPECT_TRUE(at::allclose(gradients.at("6.weight"), oracle.parameters.at("6.weight").grad(), 1e-4, 1e-6));
}

// A stage at the front with nothing to train: its outputs need no gradient, so it keeps nothing and has no backward.
TEST(StageTest, AStageWithNothingToTrainKeepsNothing) {
  const v1::JobSpec spec = ParseSpec(Network(3) + Training("mse: {}", "freeze: [\"0.\"]"));
  v1::Plan plan = PlanOf(spec, {1, 6});
  plan.mutable_stages(0)->set_needs_backward(false);
  plan.mutable_edges(0)->set_requires_grad(false);
  auto stage = Stage::Create(spec, plan, 0, at::kCPU).value();
  ASSERT_TRUE(stage->Begin({0, 0, {kSamples}, true, {}}).ok());
  ASSERT_TRUE(stage->Forward(0, {Input()}, ForwardMode::kKeep).ok());
  EXPECT_EQ(stage->peak_saved_bytes(), 0);
  EXPECT_EQ(stage->Backward(0, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(stage->End().ok());
}

// Where the plan asks for a gradient that no path leads to, zeros go back rather than nothing.
TEST(StageTest, AnInputThatLeadsNowhereGetsZeros) {
  const v1::JobSpec spec = ParseSpec(Network(3) + Training("mse: {}", "freeze: [\"\"]"));
  v1::Plan plan = PlanOf(spec, {1, 6});
  plan.mutable_edges(0)->set_requires_grad(true);
  auto first = Stage::Create(spec, plan, 0, at::kCPU).value();
  ASSERT_TRUE(first->Begin({0, 0, {kSamples}, true, {}}).ok());
  const auto out = first->Forward(0, {Input()}, ForwardMode::kKeep);
  ASSERT_TRUE(out.ok()) << out.status();
  const auto none = first->Backward(0, {at::ones({kSamples, 8})});
  ASSERT_TRUE(none.ok()) << none.status();
  ASSERT_EQ(none->size(), 1u);
  for (const at::Tensor& gradient : *none) EXPECT_FALSE(gradient.defined()) << "of the model's input";
}

TEST(StageTest, DeferredBatchNormCommitsAtTheEnd) {
  const std::string text = R"(
name: test
model: {sequential: [{batch_norm_1d: {num_features: 5}}, {linear: {in_features: 5, out_features: 3}}]}
)";
  const LossCase c = LossCases()[2];
  const v1::JobSpec plain = ParseSpec(text + Training(c.loss));
  const v1::JobSpec deferred = ParseSpec(text + "pipeline: {deferred_batch_norm: true}\n" + Training(c.loss));
  LocalPipeline once(plain, {2});
  once.Train(Input(), c.target, {kSamples});
  for (const int checkpointed : {0, 1, 2}) {
    LocalPipeline pipeline(deferred, {1, 1});
    pipeline.Train(Input(), c.target, {4, 3}, checkpointed);
    EXPECT_TRUE(at::allclose(pipeline.State().at("0.running_mean"), once.State().at("0.running_mean"), 1e-5, 1e-7));
    EXPECT_TRUE(at::allclose(pipeline.State().at("0.running_var"), once.State().at("0.running_var"), 1e-5, 1e-7));
    EXPECT_EQ(pipeline.State().at("0.num_batches_tracked").item<int64_t>(), 1);
  }
  LocalPipeline pipeline(plain, {2});
  pipeline.Train(Input(), c.target, {4, 3}, 2);
  EXPECT_EQ(pipeline.State().at("0.num_batches_tracked").item<int64_t>(), 2);
  const at::Tensor mean = pipeline.State().at("0.running_mean").clone();
  pipeline.Evaluate(Input(), c.target, {4, 3});
  EXPECT_TRUE(at::equal(pipeline.State().at("0.running_mean"), mean)) << "evaluation must not count";
}

// O(N + L/K * N/M): a checkpointed micro-batch holds its inputs, and one recomputed micro-batch the rest.
TEST(StageTest, RecomputationSavesMemory) {
  const LossCase c = LossCases()[2];
  const v1::JobSpec spec = ParseSpec(Network(3) + Training(c.loss));
  const auto peak = [&](int checkpointed) {
    LocalPipeline pipeline(spec, {3, 4});
    pipeline.Train(Input(), c.target, {1, 1, 1, 1, 1, 1, 1}, checkpointed);
    return pipeline.stages()[1]->peak_saved_bytes();
  };
  const int64_t inputs = 2 * 8 * 4;  // `layer.2` and `skip.x` of one sample.
  const int64_t always = peak(7), never = peak(0);
  EXPECT_GT(always, 7 * inputs);
  const int64_t graph = always - 7 * inputs;  // Of one micro-batch.
  EXPECT_EQ(never, 7 * (inputs + graph));
  EXPECT_EQ(peak(6), always);
}

TEST(StageTest, BackwardLetsGoOfWhatWasSaved) {
  const v1::JobSpec spec = ParseSpec(Network(3) + Training("mse: {}"));
  auto stage = Stage::Create(spec, PlanOf(spec, {3, 4}), 0, at::kCPU).value();
  const at::Tensor input = Input();
  ASSERT_TRUE(stage->Begin({0, 0, {kSamples}, true, {}}).ok());
  const auto before = input.storage().use_count();
  ASSERT_TRUE(stage->Forward(0, {input}, ForwardMode::kKeep).ok());
  EXPECT_GT(input.storage().use_count(), before);
  const at::Tensor gradient = at::ones({kSamples, 8});
  ASSERT_TRUE(stage->Backward(0, {gradient, gradient}).ok());
  EXPECT_EQ(input.storage().use_count(), before);
}

class StageErrorTest : public ::testing::Test {
 protected:
  StageErrorTest() : spec_(ParseSpec(Network(3) + Training("mse: {}"))) {
    stage_ = Stage::Create(spec_, PlanOf(spec_, {3, 4}), 0, at::kCPU).value();
  }
  absl::Status Begin() { return stage_->Begin({0, 0, {4, 3}, true, {}}); }
  absl::Status Forward(int micro_batch, at::Tensor input, ForwardMode mode = ForwardMode::kKeep) {
    return stage_->Forward(micro_batch, {std::move(input)}, mode).status();
  }

  v1::JobSpec spec_;
  std::unique_ptr<Stage> stage_;
};

TEST_F(StageErrorTest, TensorsOfAnotherBatchSizeAreRefused) {
  ASSERT_TRUE(Begin().ok());
  const absl::Status status = Forward(1, at::ones({4, 5}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("micro-batch 1: 'input' has 4 samples instead of 3"));
  EXPECT_EQ(stage_->Forward(0, {}, ForwardMode::kKeep).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Forward(2, at::ones({3, 5})).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(StageErrorTest, TheLayerIsNamed) {
  ASSERT_TRUE(Begin().ok());
  EXPECT_THAT(std::string(Forward(0, at::ones({4, 6})).message()), HasSubstr("layer 0 (linear): expects 5 features"));
}

TEST_F(StageErrorTest, CallsOutOfOrderAreRefused) {
  EXPECT_EQ(Forward(0, at::ones({4, 5})).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stage_->End().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Begin().ok());
  EXPECT_EQ(Begin().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stage_->Recompute(0).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Forward(0, at::ones({4, 5}), ForwardMode::kCheckpointed).ok());
  EXPECT_EQ(stage_->Backward(0, {}).status().code(), absl::StatusCode::kFailedPrecondition) << "recompute first";
  EXPECT_EQ(Forward(0, at::ones({4, 5})).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(stage_->Recompute(0).ok());
  EXPECT_EQ(stage_->Recompute(0).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(StageErrorTest, AMissingGradientIsNamed) {
  ASSERT_TRUE(Begin().ok());
  ASSERT_TRUE(Forward(0, at::ones({4, 5})).ok());
  const auto status = stage_->Backward(0, {at::ones({4, 8})}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no gradient of 'skip.x'"));
}

TEST_F(StageErrorTest, WhatIsStillSavedAtTheEndIsAnError) {
  ASSERT_TRUE(Begin().ok());
  ASSERT_TRUE(Forward(1, at::ones({3, 5})).ok());
  const absl::Status status = stage_->End();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at the end: 1"));
  EXPECT_TRUE(Begin().ok());
}

TEST_F(StageErrorTest, TheLastStageWantsTheWholeTarget) {
  auto last = Stage::Create(spec_, PlanOf(spec_, {3, 4}), 1, at::kCPU).value();
  EXPECT_EQ(last->Begin({0, 0, {4, 3}, true, {}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(last->Begin({0, 0, {4, 3}, true, at::ones({6, 3})}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(last->Begin({0, 0, {4, 3}, true, at::ones({7, 3})}).ok());
}

TEST_F(StageErrorTest, AStageOutsideThePlanIsRefused) {
  EXPECT_EQ(Stage::Create(spec_, PlanOf(spec_, {3, 4}), 2, at::kCPU).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Stage::Create(spec_, PlanOf(spec_, {3, 5}), 1, at::kCPU).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gpipe::worker
