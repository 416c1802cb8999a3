// Each layer against torch.nn's numbers (tests/golden/make_layers.py), and what torch.nn has no numbers for.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/spec/reader.h"
#include "common/spec/validator.h"
#include "tests/unit/paths.h"
#include "tests/unit/worker/close.h"
#include "worker/data/tensor_file.h"
#include "worker/model/layer_backward.h"
#include "worker/model/model_layers.h"
#include "worker/model/profile.h"
#include "worker/model/segment.h"

namespace gpipe::worker {
namespace {

using ::testing::HasSubstr;

v1::JobSpec SpecOf(const std::vector<std::string>& layers) {
  v1::JobSpec spec;
  spec::SourceMap lines;
  for (const std::string& layer : layers) {
    EXPECT_TRUE(spec::ReadYaml(layer, *spec.mutable_model()->add_sequential(), lines).ok()) << layer;
  }
  return spec::WithDefaults(spec);
}

ModelLayer Build(const std::string& layer, SequentialOptions options = {}) {
  options.layer_count = 1;
  auto layers = BuildSequential(SpecOf({layer}), options);
  EXPECT_TRUE(layers.ok()) << layers.status();
  return std::move(layers->front());
}

at::Tensor Find(const ModelLayer& layer, const std::string& name) {
  for (const LayerTensor& entry : layer.layer->tensors()) {
    if (entry.name == name) return entry.tensor;
  }
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

class GoldenLayerTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto file = TensorFile::Open(GetParam());
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    layer_ = Build(file_->header().metadata.at("layer"));
    Load();
  }

  at::Tensor Golden(const std::string& name) const { return file_->Get(name).value(); }

  // The names and shapes of the state are part of the promise.
  void Load() {
    size_t saved = 0;
    for (const auto& [name, info] : file_->header().tensors) saved += name.starts_with("state.") ? 1 : 0;
    ASSERT_EQ(layer_.layer->tensors().size(), saved);
    for (const LayerTensor& entry : layer_.layer->tensors()) {
      const at::Tensor state = Golden("state." + entry.name);
      ASSERT_EQ(entry.tensor.sizes(), state.sizes()) << entry.name;
      ASSERT_EQ(entry.tensor.scalar_type(), state.scalar_type()) << entry.name;
      entry.tensor.copy_(state);
      entry.tensor.set_requires_grad(entry.parameter);
    }
  }

  std::unique_ptr<TensorFile> file_;
  ModelLayer layer_;
};

TEST_P(GoldenLayerTest, ComputesWhatTorchDoes) {
  const bool training = file_->header().metadata.at("training") == "true";
  at::Tensor input = Golden("input").clone();
  if (input.is_floating_point()) input.set_requires_grad(true);
  const auto outputs = RunLayer(layer_, {.training = training}, {input});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ExpectClose(outputs->front(), Golden("output"), "output");

  torch::autograd::backward({outputs->front()}, {Golden("output_gradient")});
  if (input.requires_grad()) ExpectClose(input.grad(), Golden("gradient.input"), "gradient.input");
  for (const LayerTensor& entry : layer_.layer->tensors()) {
    if (entry.parameter) {
      ExpectClose(entry.tensor.grad(), Golden("gradient." + entry.name), entry.name);
    } else {
      ExpectClose(entry.tensor, Golden("after." + entry.name), entry.name);
    }
  }
}

// The shape that Inspect finds is the shape that comes out.
TEST_P(GoldenLayerTest, FindsTheSameShapeOnMetaTensors) {
  const ModelLayer meta = Build(file_->header().metadata.at("layer"), {.device = at::kMeta});
  const auto outputs = RunLayer(meta, {}, {at::empty_like(Golden("input"), at::device(at::kMeta))});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(outputs->front().sizes(), Golden("output").sizes());
  EXPECT_EQ(outputs->front().scalar_type(), Golden("output").scalar_type());
  for (const LayerTensor& entry : meta.layer->tensors()) EXPECT_TRUE(entry.tensor.is_meta()) << entry.name;
}

std::vector<std::string> GoldenFiles() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(SourceFolder() / "tests/golden/layers")) {
    files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenLayerTest, ::testing::ValuesIn(GoldenFiles()),
                         [](const auto& info) { return std::filesystem::path(info.param).stem().string(); });

TEST(LayerInitTest, DrawsFromItsOwnStream) {
  const v1::JobSpec spec =
      SpecOf({"linear: {in_features: 4, out_features: 4}", "linear: {in_features: 4, out_features: 4}"});
  const auto both = BuildSequential(spec, {.first_layer = 0, .layer_count = 2});
  const auto second = BuildSequential(spec, {.first_layer = 1, .layer_count = 1});
  const at::Tensor weight = Find((*both)[1], "weight");
  EXPECT_TRUE(at::equal(weight, Find(second->front(), "weight"))) << "the cut must not matter";
  EXPECT_FALSE(at::equal(weight, Find((*both)[0], "weight")));
  v1::JobSpec other = spec;
  other.mutable_model()->set_init_seed(1);
  EXPECT_FALSE(at::equal(weight, Find((*BuildSequential(other, {.first_layer = 1, .layer_count = 1}))[0], "weight")));
}

// torch.nn's distributions, by their bounds and moments.
TEST(LayerInitTest, HasTorchsDistributions) {
  const ModelLayer linear = Build("linear: {in_features: 100, out_features: 400}");
  EXPECT_LE(Find(linear, "weight").abs().max().item<float>(), 0.1f);
  EXPECT_NEAR(Find(linear, "weight").std().item<float>(), 0.1 / std::sqrt(3.0), 1e-3);
  EXPECT_GT(Find(linear, "bias").abs().max().item<float>(), 0.09f);

  const ModelLayer conv = Build("conv_2d: {in_channels: 8, out_channels: 64, kernel_size: 5, groups: 2}");
  EXPECT_LE(Find(conv, "weight").abs().max().item<float>(), 0.1f);  // 1/sqrt(4*5*5)
  EXPECT_GT(Find(conv, "weight").abs().max().item<float>(), 0.099f);

  const ModelLayer embedding = Build("embedding: {num_embeddings: 100, embedding_dim: 100, padding_idx: -1}");
  EXPECT_NEAR(Find(embedding, "weight").std().item<float>(), 1.0, 0.03);
  EXPECT_EQ(Find(embedding, "weight")[99].abs().max().item<float>(), 0);

  const ModelLayer encoder = Build("transformer_encoder_layer: {d_model: 32, nhead: 4, dim_feedforward: 64}");
  const float bound = std::sqrt(6.0f / 128);
  EXPECT_LE(Find(encoder, "self_attn.in_proj_weight").abs().max().item<float>(), bound);
  EXPECT_GT(Find(encoder, "self_attn.in_proj_weight").abs().max().item<float>(), 0.99f * bound);
  EXPECT_EQ(Find(encoder, "self_attn.in_proj_bias").abs().max().item<float>(), 0);
  EXPECT_EQ(Find(encoder, "self_attn.out_proj.bias").abs().max().item<float>(), 0);
}

TEST(DropoutTest, RepeatsForOneMicroBatchAndDiffersForOthers) {
  const ModelLayer dropout = Build("dropout: {p: 0.3}");
  const at::Tensor x = at::ones({50, 40});
  const LayerContext context{.training = true, .seed = 5, .step = 2, .micro_batch = 1};
  const auto run = [&](const LayerContext& c) { return RunLayer(dropout, c, {x}).value().front(); };
  const at::Tensor first = run(context);
  at::rand({7});  // The process's own generator plays no part.
  EXPECT_TRUE(at::equal(first, run({.training = true, .recomputing = true, .seed = 5, .step = 2, .micro_batch = 1})));
  EXPECT_FALSE(at::equal(first, run({.training = true, .seed = 6, .step = 2, .micro_batch = 1})));
  EXPECT_FALSE(at::equal(first, run({.training = true, .seed = 5, .step = 3, .micro_batch = 1})));
  EXPECT_FALSE(at::equal(first, run({.training = true, .seed = 5, .step = 2, .micro_batch = 0})));
  EXPECT_NEAR(first.eq(0).sum().item<double>() / 2000, 0.3, 0.04);
  EXPECT_NEAR(first.max().item<double>(), 1 / 0.7, 1e-6);
  EXPECT_TRUE(at::equal(run({.seed = 5}), x));
}

// With dropout the attention is formed by hand; it must be the fused operator's where nothing happens to be dropped.
TEST(TransformerTest, AttentionWithVanishingDropoutIsTheFusedOne) {
  const std::string arguments = "d_model: 16, nhead: 4, dim_feedforward: 32, dropout: ";
  const ModelLayer fused = Build("transformer_encoder_layer: {" + arguments + "0}");
  const ModelLayer manual = Build("transformer_encoder_layer: {" + arguments + "1e-9}");
  const at::Tensor x = at::randn({3, 7, 16});
  const auto a = RunLayer(fused, {.training = true}, {x}), b = RunLayer(manual, {.training = true}, {x});
  ExpectClose(b->front(), a->front(), "output");
}

TEST(TransformerTest, DropoutsWithinALayerAreDifferentAndRepeat) {
  const ModelLayer layer =
      Build("transformer_encoder_layer: {d_model: 16, nhead: 4, dim_feedforward: 16, dropout: 0.5}");
  const at::Tensor x = at::randn({3, 7, 16});
  const LayerContext context{.training = true, .seed = 1};
  const auto once = RunLayer(layer, context, {x}), again = RunLayer(layer, context, {x});
  EXPECT_TRUE(at::equal(once->front(), again->front()));
  EXPECT_FALSE(at::equal(once->front(), RunLayer(layer, {}, {x})->front()));
}

TEST(BatchNormTest, RecomputingCountsNothing) {
  const ModelLayer layer = Build("batch_norm_1d: {num_features: 3}");
  const at::Tensor x = at::randn({6, 3});
  const at::Tensor first = RunLayer(layer, {.training = true}, {x})->front();
  const at::Tensor mean = Find(layer, "running_mean").clone();
  EXPECT_TRUE(at::equal(RunLayer(layer, {.training = true, .recomputing = true}, {x})->front(), first));
  EXPECT_TRUE(at::equal(Find(layer, "running_mean"), mean));
  EXPECT_EQ(Find(layer, "num_batches_tracked").item<int64_t>(), 1);
}

class DeferredBatchNormTest : public ::testing::TestWithParam<double> {};

// Whatever the micro-batches, the running statistics are those of torch's batch norm over the whole mini-batch.
TEST_P(DeferredBatchNormTest, CommitsTheWholeMiniBatch) {
  const std::string kind = absl::StrCat("batch_norm_2d: {num_features: 3, momentum: ", GetParam(), "}");
  const ModelLayer deferred = Build(kind, {.deferred_batch_norm = true}), whole = Build(kind);
  for (int step = 0; step < 3; ++step) {
    const at::Tensor x = at::randn({9, 3, 4, 2}) * 2 + 1000;  // Large means cost a naive sum of squares its digits.
    for (const at::Tensor& part : x.split_with_sizes({4, 4, 1})) {
      const at::Tensor before = Find(deferred, "running_mean").clone();
      ASSERT_TRUE(RunLayer(deferred, {.training = true}, {part}).ok());
      ASSERT_TRUE(RunLayer(deferred, {.training = true, .recomputing = true}, {part}).ok());
      EXPECT_TRUE(at::equal(Find(deferred, "running_mean"), before));
    }
    deferred.layer->EndMiniBatch();
    ASSERT_TRUE(RunLayer(whole, {.training = true}, {x}).ok());
    EXPECT_EQ(Find(deferred, "num_batches_tracked").item<int64_t>(), step + 1);
    EXPECT_TRUE(at::allclose(Find(deferred, "running_mean"), Find(whole, "running_mean"), 1e-5));
    EXPECT_TRUE(at::allclose(Find(deferred, "running_var"), Find(whole, "running_var"), 1e-4));
  }
}

INSTANTIATE_TEST_SUITE_P(Momentum, DeferredBatchNormTest, ::testing::Values(0.1, 0.7, -1));

struct Misfit {
  std::string layer;
  at::Tensor input;
  std::string message;
};

class MisfitTest : public ::testing::TestWithParam<Misfit> {};

TEST_P(MisfitTest, SaysWhatItExpects) {
  const ModelLayer layer = Build(GetParam().layer);
  const auto outputs = RunLayer(layer, {.training = true}, {GetParam().input});
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument) << outputs.status();
  EXPECT_THAT(std::string(outputs.status().message()), HasSubstr("layer 0 (" + layer.kind + "): "));
  EXPECT_THAT(std::string(outputs.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, MisfitTest,
    ::testing::Values(
        Misfit{"linear: {in_features: 64, out_features: 2}", at::ones({2, 32}), "expects 64 features, gets [*, 32]"},
        Misfit{"linear: {in_features: 3, out_features: 2}", at::ones({2, 3}, at::kLong),
               "expects Float, gets Long [*, 3]"},
        Misfit{"conv_2d: {in_channels: 3, out_channels: 2, kernel_size: 1}", at::ones({2, 1, 4, 4}),
               "expects 3 channels, gets [*, 1, 4, 4]"},
        Misfit{"conv_2d: {in_channels: 3, out_channels: 2, kernel_size: 1}", at::ones({2, 3}),
               "expects [N, C, H, W], gets [*, 3]"},
        Misfit{"embedding: {num_embeddings: 3, embedding_dim: 2}", at::ones({2, 3}), "expects int64 indices"},
        Misfit{"layer_norm: {normalized_shape: [4]}", at::ones({2, 3}), "expects the last dimensions [4], gets [*, 3]"},
        Misfit{"batch_norm_1d: {num_features: 3}", at::ones({2, 3, 1, 1}), "expects [N, C] or [N, C, L]"},
        Misfit{"batch_norm_1d: {num_features: 3}", at::ones({1, 3}), "more than one value per channel"},
        Misfit{"batch_norm_2d: {num_features: 3}", at::ones({2, 3}), "expects [N, C, H, W]"},
        Misfit{"softmax: {dim: -2}", at::ones({2, 3}), "is the batch"},
        Misfit{"flatten: {start_dim: 3}", at::ones({2, 3}), "has no dimension 3 in [*, 3]"},
        Misfit{"transformer_encoder_layer: {d_model: 8, nhead: 2}", at::ones({2, 3, 4}), "expects 8 features"}));

TEST(ModelLayersTest, NamesWhatCannotBeMade) {
  const auto layers =
      BuildSequential(SpecOf({"relu: {}", "transformer_encoder_layer: {d_model: 9, nhead: 2}"}), {.layer_count = 2});
  EXPECT_EQ(layers.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(layers.status().message()), HasSubstr("model.sequential[1].transformer_encoder_layer"));
}

// Values leave by name, and the last use of each is its end.
TEST(SegmentTest, RunsSkipsWithinAndAcross) {
  const v1::JobSpec spec =
      SpecOf({"stash: {name: a}", "relu: {}", "pop_cat: {name: a}", "stash: {name: b}", "tanh: {}"});
  auto layers = BuildSequential(spec, {.layer_count = 5});
  ASSERT_TRUE(layers.ok()) << layers.status();
  const auto segment = Segment::Create(*std::move(layers), {"input"}, {"skip.b", "layer.4"});
  ASSERT_TRUE(segment.ok()) << segment.status();
  const at::Tensor x = at::randn({2, 3});
  const auto outputs = segment->Run({}, {x});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const at::Tensor joined = at::cat({at::relu(x), x}, 1);
  EXPECT_TRUE(at::equal((*outputs)[0], joined));
  EXPECT_TRUE(at::equal((*outputs)[1], at::tanh(joined)));
}

TEST(SegmentTest, RefusesAValueThatNobodyMakes) {
  auto layers = BuildSequential(SpecOf({"pop_add: {name: a}"}), {.layer_count = 1});
  const auto segment = Segment::Create(*std::move(layers), {"input"}, {"layer.0"});
  EXPECT_EQ(segment.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(segment.status().message()), HasSubstr("skip.a"));
}

// What a layer is measured with: a value that later layers read as well, one that it alone reads, and a constant.
TEST(LayerBackwardTest, AddsToGradientsThatAreThere) {
  at::Tensor summed = at::full({2}, 3.0).set_requires_grad(true);
  summed.mutable_grad() = at::full({2}, 10.0);
  const at::Tensor alone = at::full({2}, 4.0).set_requires_grad(true), constant = at::full({2}, 5.0);
  const std::vector<at::Tensor> read = WithGradientsEnded({summed, alone, constant});
  const LayerBackward backward({read[0] * read[1] * read[2]});
  backward.Run(backward.MakeGradients());
  EXPECT_TRUE(at::equal(summed.grad(), at::full({2}, 30.0)));
  EXPECT_FALSE(alone.grad().defined());
  EXPECT_FALSE(constant.grad().defined());
}

// Two of a layer's own reads are no later one.
TEST(ReadLaterTest, IsWhatLayersBehindReadToo) {
  using Names = std::set<std::string>;
  EXPECT_THAT(ReadLater({{"x", "mask"}, {"a", "x"}, {"a", "a"}}),
              testing::ElementsAre(Names{"x"}, Names{"a"}, Names{}));
}

}  // namespace
}  // namespace gpipe::worker
