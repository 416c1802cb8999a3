#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/spec/checks.h"
#include "common/spec/client_data.h"

namespace gpipe::spec {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// So that a sample's bytes stay within their type.
constexpr int64_t kMaxSequence = int64_t{1} << 32;

void CheckRandomDataset(const v1::RandomDataset& random, const std::string& path, FieldErrors& errors) {
  CheckPositive(random.samples(), path + ".samples", errors);
  CheckPositive(random.classes(), path + ".classes", errors);
  if (random.input_shape().empty()) errors.Add(path + ".input_shape", "is required");
  for (int i = 0; i < random.input_shape_size(); ++i) {
    CheckPositive(random.input_shape(i), ElementPath(path + ".input_shape", i), errors);
  }
}

void CheckTokens(const v1::Tokens& tokens, const v1::Loss& loss, const std::string& path, FieldErrors& errors) {
  if (tokens.path().empty()) errors.Add(path + ".path", "is required");
  CheckPaths(tokens.path(), path + ".path", errors);
  CheckPositive(tokens.sequence_length(), path + ".sequence_length", errors);
  if (tokens.sequence_length() > kMaxSequence) {
    errors.Add(path + ".sequence_length", absl::StrCat("must be at most ", kMaxSequence));
  }
  if (!v1::TokenType_IsValid(tokens.dtype())) errors.Add(path + ".dtype", "is not a known value");
  if (loss.has_mse() || loss.has_bce_with_logits()) {
    errors.Add(path, "are classes, which only cross_entropy and model_output take");
  }
}

void CheckDataset(const v1::Dataset& dataset, const v1::JobSpec& spec, const std::string& path, FieldErrors& errors) {
  const v1::Loss& loss = spec.train().loss();
  if (!dataset.path().empty() + dataset.has_random() + dataset.has_tokens() + dataset.has_client() != 1) {
    errors.Add(path, "needs one of path, tokens, random, client");
    return;
  }
  CheckPaths(dataset.path(), path + ".path", errors);
  if (dataset.has_tokens()) CheckTokens(dataset.tokens(), loss, path + ".tokens", errors);
  if (loss.has_model_output() && !dataset.target().empty()) {
    errors.Add(path + ".target", "has no use: with model_output the model computes its loss from its inputs");
  }
  if (dataset.inputs_size() > 1 && !spec.model().has_exported()) {
    errors.Add(path + ".inputs", "must name one tensor: a layer list has one input");
  }
  CheckUnbatched(dataset, spec, path, errors);
  if (!dataset.has_random()) return;
  CheckRandomDataset(dataset.random(), path + ".random", errors);
  if (loss.has_mse() || loss.has_bce_with_logits()) {
    errors.Add(path + ".random", "has classes for targets, which only cross_entropy takes");
  }
}

void CheckLength(const v1::Train& train, FieldErrors& errors) {
  CheckPositive(train.batch_size(), "train.batch_size", errors);
  if (train.dataset().has_client()) return;
  CheckNotNegative(train.steps(), "train.steps", errors);
  CheckNotNegative(train.epochs(), "train.epochs", errors);
  if ((train.steps() == 0) == (train.epochs() == 0)) {
    errors.Add(train.steps() == 0 ? "train" : "train.epochs", "needs either steps or epochs");
  }
  const auto& random = train.dataset().random();
  if (train.drop_last() && random.samples() > 0 && random.samples() < train.batch_size()) {
    errors.Add("train.drop_last", absl::StrCat("leaves nothing: there are ", random.samples(), " samples"));
  }
}

// Which output and which dimension are questions about a model with several.
void CheckLossOutput(const v1::JobSpec& spec, FieldErrors& errors) {
  if (spec.model().has_exported()) return;
  const v1::Loss& loss = spec.train().loss();
  const struct {
    const char* kind;
    bool chosen;
  } kinds[] = {{"cross_entropy", !loss.cross_entropy().output().empty()},
               {"mse", !loss.mse().output().empty()},
               {"bce_with_logits", !loss.bce_with_logits().output().empty()}};
  if (loss.has_model_output()) errors.Add("train.loss.model_output", "is for exported models");
  for (const auto& [kind, chosen] : kinds) {
    if (chosen) errors.Add(absl::StrCat("train.loss.", kind, ".output"), "a layer list has one output, without a name");
  }
}

bool HasInput(const v1::Dataset& dataset, const std::string& name) {
  if (dataset.inputs().empty()) return name == "input";  // The default.
  return std::ranges::find(dataset.inputs(), name) != dataset.inputs().end();
}

// What each kind of mean needs, and no other has a use for.
void CheckModelOutput(const v1::ModelOutput& loss, const v1::Dataset& dataset, FieldErrors& errors) {
  const std::string path = "train.loss.model_output.";
  const bool targets = loss.mean_of() == v1::LOSS_MEAN_TARGETS, count = loss.mean_of() == v1::LOSS_MEAN_COUNT;
  if (targets && loss.targets().empty()) {
    errors.Add(path + "targets", "is required with `mean_of: targets`: the input whose elements count");
  } else if (targets && !HasInput(dataset, loss.targets())) {
    errors.Add(path + "targets", absl::StrCat("'", loss.targets(), "' is none of train.dataset.inputs"));
  }
  if (count && loss.count().empty()) {
    errors.Add(path + "count", "is required with `mean_of: count`: the output that is the number");
  }
  CheckNotNegative(loss.shift(), path + "shift", errors);
  const bool only_targets = !loss.targets().empty() || loss.has_ignore_index() || loss.shift() != 0;
  if (!targets && only_targets) errors.Add(path + "mean_of", "must be targets for `targets`, `ignore_index`, `shift`");
  if (!count && !loss.count().empty()) errors.Add(path + "mean_of", "must be count for `count`");
}

void CheckLoss(const v1::Train& train, FieldErrors& errors) {
  const v1::Loss& loss = train.loss();
  if (loss.has_model_output()) CheckModelOutput(loss.model_output(), train.dataset(), errors);
  if (loss.kind_case() == v1::Loss::KIND_NOT_SET && !train.dataset().has_client()) {
    errors.Add("train.loss", "is required: cross_entropy, mse, bce_with_logits or model_output");
  }
  if (loss.has_client() && !train.dataset().has_client()) {
    errors.Add("train.loss.client", "is for data that comes from a client");
  }
  CheckRange(loss.cross_entropy().label_smoothing(), 0, 1, /*closed=*/true, "train.loss.cross_entropy.label_smoothing",
             errors);
}

void CheckSgd(const v1::Sgd& sgd, const std::string& path, FieldErrors& errors) {
  CheckFinitePositive(sgd.lr(), path + ".lr", errors);
  CheckRange(sgd.momentum(), 0, kInfinity, /*closed=*/false, path + ".momentum", errors);
  CheckRange(sgd.weight_decay(), 0, kInfinity, /*closed=*/false, path + ".weight_decay", errors);
  CheckRange(sgd.dampening(), 0, 1, /*closed=*/true, path + ".dampening", errors);
  if (sgd.nesterov() && (sgd.momentum() <= 0 || sgd.dampening() != 0)) {
    errors.Add(path + ".nesterov", "needs a momentum and no dampening");
  }
}

void CheckAdam(const v1::Adam& adam, const std::string& path, FieldErrors& errors) {
  if (adam.has_lr()) CheckFinitePositive(adam.lr(), path + ".lr", errors);
  if (adam.has_eps()) CheckRange(adam.eps(), 0, kInfinity, /*closed=*/false, path + ".eps", errors);
  if (adam.has_weight_decay()) {
    CheckRange(adam.weight_decay(), 0, kInfinity, /*closed=*/false, path + ".weight_decay", errors);
  }
  if (!adam.betas().empty() && adam.betas_size() != 2) errors.Add(path + ".betas", "must be two numbers");
  for (int i = 0; i < adam.betas_size(); ++i) {
    CheckRange(adam.betas(i), 0, 1, /*closed=*/false, ElementPath(path + ".betas", i), errors);
  }
}

void CheckOptimizer(const v1::Optimizer& optimizer, FieldErrors& errors) {
  switch (optimizer.kind_case()) {
    case v1::Optimizer::kSgd:
      return CheckSgd(optimizer.sgd(), "train.optimizer.sgd", errors);
    case v1::Optimizer::kAdam:
      return CheckAdam(optimizer.adam(), "train.optimizer.adam", errors);
    case v1::Optimizer::kAdamw:
      return CheckAdam(optimizer.adamw(), "train.optimizer.adamw", errors);
    case v1::Optimizer::KIND_NOT_SET:
      errors.Add("train.optimizer", "is required: sgd, adam or adamw");
  }
}

void CheckPrecision(const v1::Train& train, FieldErrors& errors) {
  if (!v1::Precision_IsValid(train.precision())) errors.Add("train.precision", "is not a known value");
  // Whether the first step was left out is known on the device only.
  if (train.precision() == v1::PRECISION_FP16 && train.optimizer().sgd().dampening() != 0) {
    errors.Add("train.optimizer.sgd.dampening", "is not possible in fp16; use bf16 or leave it out");
  }
}

void CheckWarmup(const v1::WarmupLr& warmup, const v1::Train& train, const std::string& path, FieldErrors& errors) {
  CheckNotNegative(warmup.warmup_steps(), path + ".warmup_steps", errors);
  CheckRange(warmup.final_lr(), 0, kInfinity, /*closed=*/false, path + ".final_lr", errors);
  if (train.steps() > 0 && warmup.warmup_steps() >= train.steps()) {
    errors.Add(path + ".warmup_steps", absl::StrCat("must be fewer than the ", train.steps(), " steps"));
  }
}

void CheckLrSchedule(const v1::Train& train, FieldErrors& errors) {
  const v1::LrSchedule& schedule = train.lr_schedule();
  if (schedule.has_step()) {
    CheckPositive(schedule.step().step_size(), "train.lr_schedule.step.step_size", errors);
    if (schedule.step().has_gamma()) {
      CheckFinitePositive(schedule.step().gamma(), "train.lr_schedule.step.gamma", errors);
    }
  }
  if (schedule.has_warmup_cosine()) {
    CheckWarmup(schedule.warmup_cosine(), train, "train.lr_schedule.warmup_cosine", errors);
  }
  if (schedule.has_warmup_linear()) {
    CheckWarmup(schedule.warmup_linear(), train, "train.lr_schedule.warmup_linear", errors);
  }
}

// A prefix is `<position>.`, or that and the beginning of a parameter's name. The position must be written as in names:
// `01.` or ` 1.` would freeze nothing, silently.
void CheckFreeze(const v1::JobSpec& spec, FieldErrors& errors) {
  for (int i = 0; i < spec.train().freeze_size(); ++i) {
    const std::string& prefix = spec.train().freeze(i);
    if (spec.model().has_exported()) {
      // Its names are known when it has been looked at.
      if (prefix.empty()) errors.Add(ElementPath("train.freeze", i), "is empty");
      continue;
    }
    const size_t dot = prefix.find('.');
    int layer = -1;
    const bool good = dot != std::string::npos && absl::SimpleAtoi(prefix.substr(0, dot), &layer) && layer >= 0 &&
                      layer < spec.model().sequential_size() && prefix.substr(0, dot) == absl::StrCat(layer);
    if (!good) {
      errors.Add(ElementPath("train.freeze", i),
                 absl::StrCat("'", prefix, "' begins no parameter's name; they are like 0.weight"));
    }
  }
}

}  // namespace

void CheckTrain(const v1::JobSpec& spec, FieldErrors& errors) {
  const v1::Train& train = spec.train();
  if (train.has_dataset()) {
    CheckDataset(train.dataset(), spec, "train.dataset", errors);
  } else {
    errors.Add("train.dataset", "is required");
  }
  if (HasClientData(spec)) CheckClientData(spec, errors);
  CheckLength(train, errors);
  CheckLoss(train, errors);
  CheckLossOutput(spec, errors);
  CheckPrecision(train, errors);
  CheckOptimizer(train.optimizer(), errors);
  CheckLrSchedule(train, errors);
  CheckRange(train.grad_clip_norm(), 0, kInfinity, /*closed=*/false, "train.grad_clip_norm", errors);
  CheckNotNegative(train.checkpoint_every(), "train.checkpoint_every", errors);
  CheckNotNegative(train.keep_checkpoints(), "train.keep_checkpoints", errors);
  CheckFreeze(spec, errors);
  if (!train.has_evaluate()) return;
  CheckNotNegative(train.evaluate().every_steps(), "train.evaluate.every_steps", errors);
  if (train.evaluate().has_dataset()) {
    CheckDataset(train.evaluate().dataset(), spec, "train.evaluate.dataset", errors);
    if (train.evaluate().dataset().has_client()) errors.Add("train.evaluate.dataset.client", "is for training");
    CheckSameUnbatched(train, errors);
  } else {
    errors.Add("train.evaluate.dataset", "is required");
  }
}

void CheckInfer(const v1::JobSpec& spec, FieldErrors& errors) {
  const v1::Infer& infer = spec.infer();
  if (infer.has_random_inputs() == !infer.inputs().empty()) {
    errors.Add("infer", "needs either inputs or random_inputs");
  }
  CheckPaths(infer.inputs(), "infer.inputs", errors);
  CheckNotNegative(infer.batch_size(), "infer.batch_size", errors);
  if (!infer.outputs().empty() && !spec.model().has_exported()) {
    errors.Add("infer.outputs", "is for exported models: a layer list has one output, `output`");
  }
  CheckUnbatched(infer, spec, errors);
  if (!infer.has_random_inputs()) return;
  if (infer.random_inputs().shape().empty()) errors.Add("infer.random_inputs.shape", "is required");
  for (int i = 0; i < infer.random_inputs().shape_size(); ++i) {
    CheckPositive(infer.random_inputs().shape(i), ElementPath("infer.random_inputs.shape", i), errors);
  }
}

}  // namespace gpipe::spec
