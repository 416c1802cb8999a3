#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/unit/common/spec_testing.h"

namespace gpipe::spec {
namespace {

using google::protobuf::util::MessageDifferencer;

v1::JobSpec Read(std::string_view text) {
  v1::JobSpec spec;
  SourceMap lines;
  const absl::Status status = ReadYaml(text, spec, lines);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(Validate(spec).ok()) << Validate(spec);
  return spec;
}

void ExpectDefaults(std::string_view given, std::string_view filled) {
  EXPECT_TRUE(MessageDifferencer::Equals(WithDefaults(Read(given)), Read(filled)))
      << WithDefaults(Read(given)).DebugString();
  EXPECT_TRUE(MessageDifferencer::Equals(WithDefaults(Read(filled)), Read(filled)));
}

TEST(SpecDefaultsTest, LayersAreThoseOfTorch) {
  constexpr char kAround[] =
      "name: a\npipeline: {chunks: 1, checkpoint: auto, schedule: gpipe, device: any, capture: "
      "auto}\nmax_restarts: 3\n"
      "infer: {inputs: x, batch_size: 64}\nmodel:\n  sequential:\n";
  const std::string given = std::string(kAround) + R"(
    - linear: {in_features: 1, out_features: 2}
    - conv_2d: {in_channels: 1, out_channels: 2, kernel_size: 3}
    - layer_norm: {normalized_shape: 4}
    - batch_norm_1d: {num_features: 4}
    - batch_norm_2d: {num_features: 4}
    - dropout
    - gelu
    - softmax
    - max_pool_2d: {kernel_size: [2, 3]}
    - avg_pool_2d: {kernel_size: 2}
    - flatten
    - transformer_encoder_layer: {d_model: 8, nhead: 2}
    - stash: {name: x}
    - pop_cat: {name: x}
)";
  const std::string filled = std::string(kAround) + R"(
    - linear: {in_features: 1, out_features: 2, bias: true}
    - conv_2d: {in_channels: 1, out_channels: 2, kernel_size: [3, 3], stride: [1, 1], padding: [0, 0],
                dilation: [1, 1], groups: 1, bias: true}
    - layer_norm: {normalized_shape: 4, eps: 1e-5, elementwise_affine: true, bias: true}
    - batch_norm_1d: {num_features: 4, eps: 1e-5, momentum: 0.1, affine: true, track_running_stats: true}
    - batch_norm_2d: {num_features: 4, eps: 1e-5, momentum: 0.1, affine: true, track_running_stats: true}
    - dropout: {p: 0.5}
    - gelu: {approximate: none}
    - softmax: {dim: -1}
    - max_pool_2d: {kernel_size: [2, 3], stride: [2, 3], padding: [0, 0], dilation: [1, 1]}
    - avg_pool_2d: {kernel_size: [2, 2], stride: [2, 2], padding: [0, 0], count_include_pad: true}
    - flatten: {start_dim: 1, end_dim: -1}
    - transformer_encoder_layer: {d_model: 8, nhead: 2, dim_feedforward: 2048, dropout: 0.1, activation: relu,
                                  layer_norm_eps: 1e-5, bias: true}
    - stash: {name: x}
    - pop_cat: {name: x, dim: 1}
)";
  ExpectDefaults(given, filled);
}

TEST(SpecDefaultsTest, PipelineAndInference) {
  ExpectDefaults(
      "name: a\nmodel: {sequential: [relu]}\ninfer: {inputs: x}\n",
      "name: a\nmodel: {sequential: [relu]}\ninfer: {inputs: x, batch_size: 64}\n"
      "pipeline: {chunks: 1, checkpoint: auto, schedule: gpipe, device: any, capture: auto}\nmax_restarts: 3\n");
}

TEST(SpecDefaultsTest, Training) {
  constexpr char kAround[] =
      "name: a\nmodel: {sequential: [relu]}\n"
      "pipeline: {chunks: 1, checkpoint: auto, schedule: gpipe, device: any, capture: auto}\nmax_restarts: 3\n";
  ExpectDefaults(std::string(kAround) + R"(
train:
  dataset: {path: d}
  evaluate: {dataset: {path: e, target: label}}
  batch_size: 4
  steps: 2
  loss: cross_entropy
  optimizer: adamw
)",
                 std::string(kAround) + R"(
train:
  dataset: {path: d, inputs: [input], target: target}
  evaluate: {dataset: {path: e, inputs: [input], target: label}}
  batch_size: 4
  steps: 2
  loss: {cross_entropy: {ignore_index: -100, class_dim: 1}}
  precision: fp32
  grad_norm: true
  keep_checkpoints: 2
  optimizer: {adamw: {lr: 0.001, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01}}
  lr_schedule: constant
)");
}

TEST(SpecDefaultsTest, WeightDecayIsThatOfTheOptimizer) {
  const std::string spec =
      "name: a\nmodel: {sequential: [relu]}\ntrain: {dataset: {path: d}, batch_size: 1, epochs: 1, loss: mse,"
      " lr_schedule: {step: {step_size: 3}}, optimizer: adam}\n";
  const v1::JobSpec filled = WithDefaults(Read(spec));
  EXPECT_EQ(filled.train().optimizer().adam().weight_decay(), 0);
  EXPECT_TRUE(filled.train().optimizer().adam().has_weight_decay());
  EXPECT_EQ(filled.train().lr_schedule().step().gamma(), 0.1);
}

}  // namespace
}  // namespace gpipe::spec
