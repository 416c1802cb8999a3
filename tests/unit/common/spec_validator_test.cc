// Every refusal of the validator: one change to a good spec, and the field and line that the error must name.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/spec/validator.h"
#include "gtest/gtest.h"
#include "tests/unit/common/spec_testing.h"

namespace gpipe::spec {
namespace {

constexpr char kTrain[] = R"(name: base
model:
  sequential:
    - conv_2d: {in_channels: 4, out_channels: 8, kernel_size: [3, 5], stride: 2, padding: 1, dilation: 3, groups: 2}
    - batch_norm_2d: {num_features: 16, eps: 0.001, momentum: 0.2}
    - max_pool_2d: {kernel_size: [4, 2], stride: 1, padding: 1}
    - avg_pool_2d: {kernel_size: 2}
    - flatten: {start_dim: 1, end_dim: -1}
    - linear: {in_features: 128, out_features: 64}
    - stash: {name: x}
    - dropout: {p: 0.25}
    - gelu: {approximate: tanh}
    - pop_add: {name: x}
    - stash: {name: y}
    - softmax: {dim: 2}
    - pop_cat: {name: y, dim: 1}
    - layer_norm: {normalized_shape: [32, 8], eps: 0.01}
    - embedding: {num_embeddings: 10, embedding_dim: 12, padding_idx: 3}
    - transformer_encoder_layer: {d_model: 24, nhead: 6, dim_feedforward: 48, dropout: 0.1, activation: gelu}
pipeline:
  balance: [9, 7]
  workers: 2
  chunks: 3
  clock_window: 4
train:
  dataset:
    random: {samples: 100, input_shape: [4, 9, 9], classes: 5, seed: 1}
  batch_size: 50
  steps: 40
  loss: {cross_entropy: {label_smoothing: 0.1}}
  optimizer: {sgd: {lr: 0.05, momentum: 0.9, dampening: 0, weight_decay: 0.01, nesterov: true}}
  lr_schedule: {warmup_cosine: {warmup_steps: 39, final_lr: 0.001}}
  grad_clip_norm: 1.5
  drop_last: true
  evaluate: {dataset: {path: test.safetensors}, every_steps: 7}
  checkpoint_every: 6
  freeze: ['0.', '15.weight']
)";

constexpr char kInfer[] = R"(name: base
model:
  sequential:
    - linear: {in_features: 4, out_features: 2}
infer:
  random_inputs: {shape: [64, 4], seed: 1}
  batch_size: 8
)";

struct Row {
  const char* from;
  const char* to;
  const char* field;
  const char* what;
  // Where the error must point when that is not the line of the change: the one where this stands.
  const char* at = nullptr;
};

// Each row must give exactly one problem, on its line.
void ExpectEach(const std::string& base, const std::vector<Row>& rows) {
  ASSERT_THAT(ProblemsOf(base), testing::IsEmpty());
  for (const Row& row : rows) {
    int line = 0;
    const std::string text = Replaced(base, row.from, row.to, line);
    if (row.at != nullptr) Replaced(text, row.at, row.at, line);
    EXPECT_THAT(ProblemsOf(text), testing::ElementsAre(IsProblem(line, row.field, row.what)))
        << row.from << " -> " << row.to;
  }
}

TEST(SpecValidatorTest, RefusesBadNames) {
  const std::string long_name = "name: " + std::string(64, 'n');
  ExpectEach(kInfer, {
                         {"name: base", "# nameless", "name", "is required", "model:"},
                         {"name: base", "name: .hidden", "name", "63"},
                         {"name: base", "name: a/b", "name", "63"},
                         {"name: base", "name: a b", "name", "63"},
                         {"name: base", long_name.c_str(), "name", "63"},
                     });
  EXPECT_THAT(ProblemsOf("name: " + std::string(63, 'n') + std::string(kInfer).substr(10)), testing::IsEmpty());
}

TEST(SpecValidatorTest, RestartsAreFewOrNone) {
  ExpectEach(kInfer, {
                         {"model:", "max_restarts: -1\nmodel:", "max_restarts", "between 0 and 1000", "max_restarts"},
                         {"model:", "max_restarts: 1001\nmodel:", "max_restarts", "is 1001", "max_restarts"},
                     });
  EXPECT_THAT(ProblemsOf(std::string(kInfer) + "max_restarts: 1000\n"), testing::IsEmpty());
}

TEST(SpecValidatorTest, RefusesBadLayerArguments) {
  const std::string conv = "model.sequential[0].conv_2d";
  const std::string transformer = "model.sequential[15].transformer_encoder_layer";
  const auto at = [](const std::string& layer, const char* field) { return layer + "." + field; };
  const std::string groups = at(conv, "groups"), kernel = at(conv, "kernel_size"), dilation = at(conv, "dilation");
  const std::string channels = at(conv, "in_channels"), stride = at(conv, "stride"), padding = at(conv, "padding");
  const std::string nhead = at(transformer, "nhead"), d_model = at(transformer, "d_model");
  const std::string feedforward = at(transformer, "dim_feedforward"), dropout = at(transformer, "dropout");
  const std::string activation = at(transformer, "activation"), layer_eps = at(transformer, "layer_norm_eps");
  ExpectEach(
      kTrain,
      {
          {"in_channels: 4", "in_channels: 0", channels.c_str(), "positive"},
          {"in_channels: 4, ", "", channels.c_str(), "positive"},
          {"groups: 2", "groups: 3", groups.c_str(), "divide"},
          {"groups: 2", "groups: 0", groups.c_str(), "positive"},
          {"kernel_size: [3, 5], ", "", kernel.c_str(), "required"},
          {"kernel_size: [3, 5]", "kernel_size: [3, 5, 7]", kernel.c_str(), "two"},
          {"kernel_size: [3, 5]", "kernel_size: 0", kernel.c_str(), "at least 1"},
          {"stride: 2", "stride: -1", stride.c_str(), "at least 1"},
          {"padding: 1, dilation", "padding: -1, dilation", padding.c_str(), "at least 0"},
          {"dilation: 3", "dilation: 0", dilation.c_str(), "at least 1"},
          {"num_features: 16", "num_features: -16", "model.sequential[1].batch_norm_2d.num_features", "positive"},
          {"eps: 0.001", "eps: -0.001", "model.sequential[1].batch_norm_2d.eps", "at least 0"},
          {"eps: 0.001", "eps: nan", "model.sequential[1].batch_norm_2d.eps", "finite"},
          {"momentum: 0.2", "momentum: 1.5", "model.sequential[1].batch_norm_2d.momentum", "[0, 1]"},
          {"padding: 1}", "padding: 2}", "model.sequential[2].max_pool_2d.padding", "half"},
          {"padding: 1}", "padding: [3, 1]}", "model.sequential[2].max_pool_2d.padding", "half"},
          {"kernel_size: 2}", "kernel_size: 2, padding: [0, 2]}", "model.sequential[3].avg_pool_2d.padding", "half"},
          {"start_dim: 1", "start_dim: 0", "model.sequential[4].flatten.start_dim", "batch"},
          {"end_dim: -1", "end_dim: 0", "model.sequential[4].flatten.end_dim", "batch"},
          {"in_features: 128", "in_features: 0", "model.sequential[5].linear.in_features", "positive"},
          {"out_features: 64", "out_features: -64", "model.sequential[5].linear.out_features", "positive"},
          {"p: 0.25", "p: 1.01", "model.sequential[7].dropout.p", "[0, 1]"},
          {"p: 0.25", "p: -0.1", "model.sequential[7].dropout.p", "[0, 1]"},
          {"approximate: tanh", "approximate: sigmoid", "model.sequential[8].gelu.approximate", "none or tanh"},
          {"dim: 2", "dim: 0", "model.sequential[11].softmax.dim", "batch"},
          {"name: y, dim: 1", "name: y, dim: 0", "model.sequential[12].pop_cat.dim", "batch"},
          {"pop_add: {name: x}", "pop_add: {name: x, dim: 1}", "model.sequential[9].pop_add.dim", "pop_cat only"},
          {"normalized_shape: [32, 8], ", "", "model.sequential[13].layer_norm.normalized_shape", "required"},
          {"[32, 8]", "[32, 0]", "model.sequential[13].layer_norm.normalized_shape[1]", "positive"},
          {"num_embeddings: 10", "num_embeddings: 0", "model.sequential[14].embedding.num_embeddings", "positive"},
          {"embedding_dim: 12", "embedding_dim: 0", "model.sequential[14].embedding.embedding_dim", "positive"},
          {"padding_idx: 3", "padding_idx: 10", "model.sequential[14].embedding.padding_idx", "row"},
          {"padding_idx: 3", "padding_idx: -11", "model.sequential[14].embedding.padding_idx", "row"},
          {"d_model: 24", "d_model: 0", d_model.c_str(), "positive"},
          {"nhead: 6", "nhead: 7", nhead.c_str(), "divide"},
          {"nhead: 6", "nhead: 0", nhead.c_str(), "positive"},
          {"dim_feedforward: 48", "dim_feedforward: 0", feedforward.c_str(), "positive"},
          {"dropout: 0.1,", "dropout: 2,", dropout.c_str(), "[0, 1]"},
          {"activation: gelu", "activation: swish", activation.c_str(), "relu or gelu"},
          {"activation: gelu", "layer_norm_eps: -1", layer_eps.c_str(), "at least 0"},
      });
}

// torchgpipe's mismatches. One layer that stashes and pops one name cannot be written: they are layers of their own.
TEST(SpecValidatorTest, RefusesSkipsThatDoNotPair) {
  const auto spec = [](const std::string& layers) {
    return "name: skips\nmodel:\n  sequential:\n" + layers + "infer: {inputs: x.safetensors}\n";
  };
  EXPECT_THAT(ProblemsOf(spec("    - stash: {name: a}\n    - relu\n    - pop_add: {name: a}\n")), testing::IsEmpty());
  EXPECT_THAT(ProblemsOf(spec("    - stash: {name: a}\n    - stash: {name: a}\n    - pop_add: {name: a}\n")),
              testing::ElementsAre(IsProblem(5, "model.sequential[1].stash", "stashed already, by layer 0")));
  EXPECT_THAT(ProblemsOf(spec("    - stash: {name: a}\n    - pop_cat: {name: a}\n    - pop_add: {name: a}\n")),
              testing::ElementsAre(IsProblem(6, "model.sequential[2].pop_add", "popped already")));
  EXPECT_THAT(ProblemsOf(spec("    - relu\n    - pop_add: {name: a}\n")),
              testing::ElementsAre(IsProblem(5, "model.sequential[1].pop_add", "no earlier layer stashed")));
  EXPECT_THAT(ProblemsOf(spec("    - relu\n    - stash: {name: a}\n")),
              testing::ElementsAre(IsProblem(5, "model.sequential[1].stash", "no later layer pops")));
  EXPECT_THAT(ProblemsOf(spec("    - pop_add: {name: a}\n    - stash: {name: a}\n")),
              testing::ElementsAre(IsProblem(4, "model.sequential[0].pop_add", "no earlier layer stashed"),
                                   IsProblem(5, "model.sequential[1].stash", "no later layer pops")));
}

TEST(SpecValidatorTest, ReportsEveryMismatchAtOnce) {
  const auto problems = ProblemsOf(
      "name: skips\nmodel:\n  sequential:\n    - stash: {name: a}\n    - stash: {name: a}\n    - pop_add: {name: a}\n"
      "    - pop_add: {name: a}\ninfer: {inputs: x}\n");
  EXPECT_EQ(problems.size(), 2u);
}

TEST(SpecValidatorTest, RefusesModelsThatAreNone) {
  EXPECT_THAT(ProblemsOf("name: none\ninfer: {inputs: x}\n"),
              testing::ElementsAre(IsProblem(1, "model.sequential", "at least one layer")));
  EXPECT_THAT(ProblemsOf("name: none\nmodel:\n  sequential:\n    - {}\ninfer: {inputs: x}\n"),
              testing::ElementsAre(IsProblem(4, "model.sequential[0]", "no layer")));
}

TEST(SpecValidatorTest, RefusesBadPipelines) {
  ExpectEach(kTrain,
             {
                 {"[9, 7]", "[9, 8]", "pipeline.balance", "sum of balance: 17, layers: 16"},
                 {"[9, 7]", "[9, 6]", "pipeline.balance", "sum of balance: 15, layers: 16"},
                 {"[9, 7]", "[16, 0]", "pipeline.balance[1]", "positive"},
                 {"[9, 7]", "[17, -1]", "pipeline.balance[1]", "positive"},
                 {"[9, 7]", "[9223372036854775807, 9223372036854775807]", "pipeline.balance", "number of layers"},
                 {"[9, 7]", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "pipeline.balance", "stages: 17, layers: 16"},
                 {"workers: 2", "workers: 3", "pipeline.workers", "stages, 2"},
                 {"workers: 2", "workers: -1", "pipeline.workers", "negative"},
                 {"chunks: 3", "chunks: 0", "pipeline.chunks", "positive"},
                 {"chunks: 3", "chunks: -3", "pipeline.chunks", "positive"},
                 {"clock_window: 4", "clock_window: -4", "pipeline.clock_window", "negative"},
             });
}

TEST(SpecValidatorTest, RefusesMoreWorkersThanLayersWithoutBalance) {
  EXPECT_THAT(ProblemsOf(std::string(kInfer) + "pipeline:\n  workers: 2\n"),
              testing::ElementsAre(IsProblem(9, "pipeline.workers", "layers, 1")));
}

TEST(SpecValidatorTest, RefusesBadSplits) {
  const std::string exported =
      "name: split\nmodel: {exported: {path: m.pt2}}\npipeline:\n  split: [h.1, h.2]\n"
      "  workers: 3\ninfer: {inputs: x}\n";
  ExpectEach(exported, {
                           {"[h.1, h.2]", "[h.1, '']", "pipeline.split[1]", "must name a module"},
                           {"workers: 3", "workers: 4", "pipeline.workers", "stages, 3"},
                           {"workers: 3", "balance: [1, 2]", "pipeline.split", "exclude each other", "split:"},
                       });
  EXPECT_THAT(ProblemsOf(std::string(kInfer) + "pipeline:\n  split: [\"0\"]\n"),
              testing::ElementsAre(IsProblem(9, "pipeline.split", "for an exported model")));
}

TEST(SpecValidatorTest, RefusesEnumNumbersOfNoValue) {
  v1::JobSpec spec;
  SourceMap lines;
  ASSERT_TRUE(ReadYaml(kInfer, spec, lines).ok());
  spec.mutable_pipeline()->set_checkpoint(static_cast<v1::Checkpoint>(9));
  spec.mutable_pipeline()->set_schedule(static_cast<v1::ScheduleKind>(9));
  spec.mutable_pipeline()->set_device(static_cast<v1::Device>(9));
  const auto violations = FieldViolations(Validate(spec));
  ASSERT_EQ(violations.size(), 3u);
  EXPECT_EQ(violations[0].field, "pipeline.checkpoint");
  EXPECT_EQ(violations[1].field, "pipeline.schedule");
  EXPECT_EQ(violations[2].field, "pipeline.device");
}

TEST(SpecValidatorTest, RefusesBadTraining) {
  ExpectEach(
      kTrain,
      {
          {"samples: 100", "samples: 0", "train.dataset.random.samples", "positive"},
          {"[4, 9, 9]", "[4, 0, 9]", "train.dataset.random.input_shape[1]", "positive"},
          {"input_shape: [4, 9, 9], ", "", "train.dataset.random.input_shape", "required"},
          {"classes: 5", "classes: 0", "train.dataset.random.classes", "positive"},
          {"batch_size: 50", "batch_size: 101", "train.drop_last", "100 samples", "drop_last"},
          {"batch_size: 50", "batch_size: 0", "train.batch_size", "positive"},
          {"batch_size: 50", "batch_size: -1", "train.batch_size", "positive"},
          {"steps: 40", "epochs: 0", "train", "either steps or epochs", "train:"},
          {"steps: 40", "steps: 40\n  epochs: 2", "train.epochs", "either steps or epochs", "epochs: 2"},
          {"loss: {cross_entropy: {label_smoothing: 0.1}}", "# lossless", "train.loss", "required", "train:"},
          {"label_smoothing: 0.1", "label_smoothing: 1.1", "train.loss.cross_entropy.label_smoothing", "[0, 1]"},
          {"{cross_entropy: {label_smoothing: 0.1}}", "mse", "train.dataset.random", "classes", "random:"},
          {"{cross_entropy: {label_smoothing: 0.1}}", "bce_with_logits", "train.dataset.random", "classes", "random:"},
          {"lr: 0.05", "lr: 0", "train.optimizer.sgd.lr", "positive"},
          {"lr: 0.05", "lr: inf", "train.optimizer.sgd.lr", "finite"},
          {"lr: 0.05", "lr: 1e999", "train.optimizer.sgd.lr", "finite"},
          {"momentum: 0.9", "momentum: 0", "train.optimizer.sgd.nesterov", "momentum"},
          {"dampening: 0,", "dampening: 0.5,", "train.optimizer.sgd.nesterov", "dampening"},
          {"weight_decay: 0.01", "weight_decay: -1", "train.optimizer.sgd.weight_decay", "at least 0"},
          {"warmup_steps: 39", "warmup_steps: 40", "train.lr_schedule.warmup_cosine.warmup_steps", "40 steps"},
          {"warmup_steps: 39", "warmup_steps: -1", "train.lr_schedule.warmup_cosine.warmup_steps", "negative"},
          {"final_lr: 0.001", "final_lr: -1", "train.lr_schedule.warmup_cosine.final_lr", "at least 0"},
          {"grad_clip_norm: 1.5", "grad_clip_norm: -1.5", "train.grad_clip_norm", "at least 0"},
          {"grad_clip_norm: 1.5", "grad_clip_norm: .nan", "train.grad_clip_norm", "a number"},
          {"{dataset: {path: test.safetensors}, ", "{", "train.evaluate.dataset", "required"},
          {"every_steps: 7", "every_steps: -7", "train.evaluate.every_steps", "negative"},
          {"path: test.safetensors", "path: a, random: {samples: 1}", "train.evaluate.dataset", "one of path"},
          {"path: test.safetensors", "path: a, inputs: [a, b]", "train.evaluate.dataset.inputs", "one tensor"},
          {"checkpoint_every: 6", "checkpoint_every: -6", "train.checkpoint_every", "negative"},
          {"'15.weight'", "'16.weight'", "train.freeze[1]", "16.weight"},
          {"'15.weight'", "'1'", "train.freeze[1]", "0.weight"},
          {"'15.weight'", "weight", "train.freeze[1]", "0.weight"},
          {"'15.weight'", "-1.weight", "train.freeze[1]", "0.weight"},
          {"'15.weight'", "' 1.weight'", "train.freeze[1]", "0.weight"},
          {"'15.weight'", "'01.weight'", "train.freeze[1]", "0.weight"},
          {"'15.weight'", "''", "train.freeze[1]", "0.weight"},
      });
}

constexpr char kUnbatched[] = R"(name: base
model: {exported: {path: m.pt2}}
train:
  dataset: {path: d.safetensors, inputs: [a, x], unbatched: [a]}
  batch_size: 4
  steps: 2
  loss: {mse: {}}
  optimizer: {adam: {}}
)";

TEST(SpecValidatorTest, RefusesBadInputsWithoutSamples) {
  EXPECT_THAT(ProblemsOf(kUnbatched), testing::IsEmpty());
  ExpectEach(kUnbatched,
             {
                 {"unbatched: [a]", "unbatched: [a, c]", "train.dataset.unbatched[1]", "none of train.dataset.inputs"},
                 {"unbatched: [a]", "unbatched: [a, x]", "train.dataset.unbatched", "no input that has samples"},
                 {"{mse: {}}", "{model_output: {mean_of: targets, targets: a}}", "train.dataset.unbatched[0]",
                  "'a' has samples", "unbatched: [a]"},
             });
  EXPECT_THAT(ProblemsOf(std::string(kInfer) + "  unbatched: [a]\n"),
              testing::ElementsAre(IsProblem(8, "infer.unbatched", "exported models"),
                                   IsProblem(8, "infer.unbatched", "files of tensors")));
}

TEST(SpecValidatorTest, EvaluationHasNoSamplesOfTheSameInputs) {
  const auto with = [](const std::string& unbatched) {
    return absl::StrCat(kUnbatched, "  evaluate: {dataset: {path: e.safetensors, inputs: [b, y], ", unbatched, "}}\n");
  };
  EXPECT_THAT(ProblemsOf(with("unbatched: [b]")), testing::IsEmpty());
  EXPECT_THAT(ProblemsOf(with("target: z")),
              testing::ElementsAre(IsProblem(9, "train.evaluate.dataset.unbatched", "'b' has none there")));
  EXPECT_THAT(ProblemsOf(with("unbatched: [y]")),
              testing::ElementsAre(IsProblem(9, "train.evaluate.dataset.unbatched", "'b' has none there"),
                                   IsProblem(9, "train.evaluate.dataset.unbatched", "'y' has samples there")));
}

TEST(SpecValidatorTest, RefusesBadAdamAndStepLr) {
  int line = 0;
  std::string base =
      Replaced(kTrain, "{sgd: {lr: 0.05, momentum: 0.9, dampening: 0, weight_decay: 0.01, nesterov: true}}",
               "{adamw: {lr: 0.1, betas: [0.8, 0.99], eps: 0.003, weight_decay: 0.04}}", line);
  base = Replaced(base, "{warmup_cosine: {warmup_steps: 39, final_lr: 0.001}}", "{step: {step_size: 5, gamma: 0.5}}",
                  line);
  ExpectEach(base, {
                       {"lr: 0.1", "lr: -0.1", "train.optimizer.adamw.lr", "positive"},
                       {"[0.8, 0.99]", "[0.8]", "train.optimizer.adamw.betas", "two"},
                       {"[0.8, 0.99]", "[0.8, 1]", "train.optimizer.adamw.betas[1]", "[0, 1)"},
                       {"[0.8, 0.99]", "[-0.8, 0.5]", "train.optimizer.adamw.betas[0]", "[0, 1)"},
                       {"eps: 0.003", "eps: -1", "train.optimizer.adamw.eps", "at least 0"},
                       {"weight_decay: 0.04", "weight_decay: -1", "train.optimizer.adamw.weight_decay", "at least 0"},
                       {"step_size: 5", "step_size: 0", "train.lr_schedule.step.step_size", "positive"},
                       {"gamma: 0.5", "gamma: 0", "train.lr_schedule.step.gamma", "positive"},
                   });
}

TEST(SpecValidatorTest, RefusesBadInference) {
  ExpectEach(kInfer, {
                         {"{shape: [64, 4], seed: 1}", "{seed: 1}", "infer.random_inputs.shape", "required"},
                         {"[64, 4]", "[64, -4]", "infer.random_inputs.shape[1]", "positive"},
                         {"batch_size: 8", "batch_size: -8", "infer.batch_size", "negative"},
                     });
  EXPECT_THAT(ProblemsOf(std::string(kInfer) + "  inputs: a.safetensors\n"),
              testing::ElementsAre(IsProblem(5, "infer", "either inputs or random_inputs")));
}

TEST(SpecValidatorTest, RefusesTasksThatAreNone) {
  EXPECT_THAT(ProblemsOf("name: idle\nmodel: {sequential: [relu]}\n"),
              testing::ElementsAre(IsProblem(1, "", "train or infer")));
}

TEST(SpecValidatorTest, ListsTheFilesOfASpec) {
  v1::JobSpec spec;
  spec.mutable_model()->set_weights("w");
  spec.mutable_train()->mutable_dataset()->add_path("d");
  spec.mutable_train()->mutable_evaluate()->mutable_dataset()->add_path("e");
  const std::vector<NamedFile> files = FilesOf(spec);
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[0].field, "model.weights");
  EXPECT_EQ(files[1].path, "d");
  EXPECT_EQ(files[2].field, "train.evaluate.dataset.path");
}

TEST(SpecValidatorTest, ListsTheDataFilesThatTheClientSends) {
  v1::JobSpec spec;
  spec.mutable_model()->set_weights("shared:/w");
  v1::Tokens& tokens = *spec.mutable_train()->mutable_dataset()->mutable_tokens();
  tokens.add_path("a.bin");
  tokens.add_path("b.bin");
  spec.mutable_train()->mutable_evaluate()->mutable_dataset()->add_path("shared:/e");
  const std::vector<NamedFile> files = FilesOf(spec);
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[1].field, "train.dataset.tokens.path[1]");
  EXPECT_EQ(DataFilesOf(spec).size(), 2u);
}

TEST(SpecValidatorTest, DataFilesAndTokens) {
  const auto with = [](const std::string& dataset, const std::string& loss = "cross_entropy") {
    return absl::StrCat("name: a\nmodel: {sequential: [relu]}\ntrain:\n  dataset: ", dataset, "\n  loss: ", loss,
                        "\n  batch_size: 1\n  steps: 1\n  optimizer: adam\n");
  };
  const auto refused = [&](const std::string& dataset, const std::string& field, const std::string& what) {
    EXPECT_THAT(ProblemsOf(with(dataset)), testing::ElementsAre(IsProblem(4, field, what))) << dataset;
  };
  for (const char* good :
       {"{path: [a, 'b*']}", "{path: 'shared:/a/*'}", "{tokens: {path: a.bin, dtype: uint16, sequence_length: 8}}"}) {
    EXPECT_THAT(ProblemsOf(with(good)), testing::IsEmpty()) << good;
  }
  refused("{}", "train.dataset", "one of path, tokens, random");
  refused("{path: a, tokens: {path: b, sequence_length: 8}}", "train.dataset", "one of path, tokens, random");
  refused("{path: [a, '']}", "train.dataset.path[1]", "empty");
  refused("{path: ['shared:/a', b]}", "train.dataset.path[1]", "all of them not");
  refused("{path: 'shared:a'}", "train.dataset.path", "go on with `/`");
  refused("{tokens: {sequence_length: 8}}", "train.dataset.tokens.path", "required");
  refused("{tokens: {path: a, sequence_length: 0}}", "train.dataset.tokens.sequence_length", "positive");
  refused("{tokens: {path: a, sequence_length: 99999999999}}", "train.dataset.tokens.sequence_length", "at most");
  EXPECT_THAT(ProblemsOf(with("{tokens: {path: a, sequence_length: 8}}", "mse")),
              testing::ElementsAre(IsProblem(4, "train.dataset.tokens", "classes")));
}

}  // namespace
}  // namespace gpipe::spec
