#include "tests/unit/worker/local_pipeline.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/spec/reader.h"
#include "common/spec/validator.h"

namespace gpipe::worker {
namespace {

constexpr uint64_t kSeed = 11;

int StageOf(const v1::Plan& plan, int layer) {
  int stage = 0;
  while (layer >= plan.stages(stage).first_layer() + plan.stages(stage).layer_count()) ++stage;
  return stage;
}

void AddEdge(v1::Plan& plan, const std::string& value, int from, int to, bool requires_grad) {
  v1::Edge& edge = *plan.add_edges();
  edge.set_value(value);
  edge.set_from_stage(from);
  edge.set_to_stage(to);
  edge.set_requires_grad(requires_grad);
}

void AddSkips(const v1::JobSpec& spec, v1::Plan& plan) {
  std::map<std::string, int> stashed;
  for (int i = 0; i < spec.model().sequential_size(); ++i) {
    const v1::Layer& layer = spec.model().sequential(i);
    if (layer.has_stash()) stashed[layer.stash().name()] = StageOf(plan, i);
    const std::string popped = layer.has_pop_add() ? layer.pop_add().name() : layer.pop_cat().name();
    if (popped.empty() || stashed.at(popped) == StageOf(plan, i)) continue;
    AddEdge(plan, "skip." + popped, stashed.at(popped), StageOf(plan, i), spec.has_train());
  }
}

template <typename T>
T Must(absl::StatusOr<T> value) {
  EXPECT_TRUE(value.ok()) << value.status();
  return std::move(value).value();
}

// Those of a stage, in its order; undefined where there is none.
std::vector<at::Tensor> Picked(const std::vector<CrossingValue>& crossing, const Values& values) {
  std::vector<at::Tensor> picked;
  for (const CrossingValue& value : crossing) {
    const auto found = values.find(value.name);
    picked.push_back(found != values.end() ? found->second : at::Tensor());
  }
  return picked;
}

void AddIfThere(const std::string& name, const at::Tensor& tensor, Values& values) {
  if (!tensor.defined()) return;
  EXPECT_FALSE(tensor.requires_grad()) << name;
  values[name] = tensor;
}

void AddResults(const Stage& stage, const PassResults& made, Values& values) {
  for (size_t i = 0; i < made.values.size(); ++i) AddIfThere(stage.outgoing()[i].name, made.values[i], values);
  for (size_t i = 0; i < made.outputs.size(); ++i) AddIfThere(stage.outputs()[i].name, made.outputs[i], values);
  AddIfThere("loss", made.loss, values);
  AddIfThere("count", made.count, values);
  AddIfThere("hits", made.hits, values);
}

}  // namespace

v1::JobSpec ParseSpec(const std::string& yaml) {
  v1::JobSpec spec;
  spec::SourceMap lines;
  const absl::Status status = spec::ReadYaml(yaml, spec, lines);
  EXPECT_TRUE(status.ok()) << status;
  return spec::WithDefaults(spec);
}

v1::JobSpec MixedNetwork(const std::string& dropout, const std::string& pipeline) {
  return ParseSpec(R"(
name: test
model:
  sequential:
    - conv_2d: {in_channels: 2, out_channels: 8, kernel_size: 3, padding: 1}
    - batch_norm_2d: {num_features: 8}
    - stash: {name: a}
    - gelu: {}
    - pop_cat: {name: a}
    - max_pool_2d: {kernel_size: 2}
    - flatten: {start_dim: 2}
    - linear: {in_features: 16, out_features: 32}
    - transformer_encoder_layer: {d_model: 32, nhead: 4, dim_feedforward: 64, dropout: )" +
                   dropout + R"(}
    - dropout: {p: )" +
                   dropout + R"(}
    - flatten: {}
    - linear: {in_features: 512, out_features: 5}
train: {loss: {cross_entropy: {label_smoothing: 0.1}}, optimizer: {adamw: {}}}
pipeline: )" + pipeline +
                   "\n");
}

v1::Plan PlanOf(const v1::JobSpec& spec, const std::vector<int>& balance) {
  v1::Plan plan;
  int first = 0;
  for (const int count : balance) {
    v1::Stage& stage = *plan.add_stages();
    stage.set_first_layer(first);
    stage.set_layer_count(count);
    stage.set_needs_backward(spec.has_train());
    if (first == 0) stage.add_inputs("input");
    first += count;
    if (plan.stages_size() < static_cast<int>(balance.size())) {
      AddEdge(plan, absl::StrCat("layer.", first - 1), plan.stages_size() - 1, plan.stages_size(), spec.has_train());
    }
  }
  AddSkips(spec, plan);
  return plan;
}

LocalPipeline::LocalPipeline(const v1::JobSpec& spec, const std::vector<int>& balance, c10::Device device)
    : plan_(PlanOf(spec, balance)) {
  for (int i = 0; i < plan_.stages_size(); ++i) stages_.push_back(Must(Stage::Create(spec, plan_, i, device)));
}

Values LocalPipeline::State() const {
  Values state;
  for (const auto& stage : stages_) {
    for (const NamedTensor& named : stage->state()) state[named.name] = named.tensor;
  }
  return state;
}

Values LocalPipeline::Gradients() const {
  Values gradients;
  for (const auto& [name, tensor] : State()) {
    if (tensor.grad().defined()) gradients[name] = tensor.grad().clone();
  }
  return gradients;
}

Values LocalPipeline::Forward(int micro_batch, const at::Tensor& input, ForwardMode mode) {
  Values values{{"input", input}};
  for (const auto& stage : stages_) {
    AddResults(*stage, Must(stage->Forward(micro_batch, Picked(stage->incoming(), values), mode)), values);
  }
  values.erase("input");
  return values;
}

void LocalPipeline::Backward(int micro_batch, bool recompute) {
  Values gradients;
  for (int i = plan_.stages_size() - 1; i >= 0; --i) {
    if (recompute) {
      EXPECT_TRUE(stages_[i]->Recompute(micro_batch).ok());
    }
    const auto made = Must(stages_[i]->Backward(micro_batch, Picked(stages_[i]->outgoing(), gradients)));
    for (size_t j = 0; j < made.size(); ++j) AddIfThere(stages_[i]->incoming()[j].name, made[j], gradients);
  }
}

at::Tensor LocalPipeline::Train(const at::Tensor& input, const at::Tensor& target, const std::vector<int64_t>& sizes,
                                int checkpointed, int64_t step) {
  const int count = static_cast<int>(sizes.size());
  for (auto& stage : stages_) {
    const absl::Status begun = stage->Begin({kSeed, step, sizes, true, target, loss_scale_});
    EXPECT_TRUE(begun.ok()) << begun;
  }
  const auto inputs = input.split_with_sizes(sizes);
  at::Tensor loss = at::zeros({}, at::device(input.device()));
  for (int i = 0; i < count; ++i) {
    loss = loss + Forward(i, inputs[i], i < checkpointed ? ForwardMode::kCheckpointed : ForwardMode::kKeep).at("loss");
  }
  for (int i = count - 1; i >= 0; --i) Backward(i, i < checkpointed);
  for (auto& stage : stages_) {
    const absl::Status ended = stage->End();
    EXPECT_TRUE(ended.ok()) << ended;
  }
  return loss;
}

Values LocalPipeline::Evaluate(const at::Tensor& input, const at::Tensor& target, const std::vector<int64_t>& sizes) {
  for (auto& stage : stages_) EXPECT_TRUE(stage->Begin({kSeed, 0, sizes, false, target}).ok());
  const auto inputs = input.split_with_sizes(sizes);
  Values result;
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (const auto& [name, tensor] : Forward(static_cast<int>(i), inputs[i], ForwardMode::kInference)) {
      const auto known = result.find(name);
      if (known == result.end()) {
        result[name] = tensor;
      } else {
        known->second = tensor.dim() == 0 ? known->second + tensor : at::cat({known->second, tensor});
      }
    }
  }
  for (auto& stage : stages_) EXPECT_TRUE(stage->End().ok());
  return result;
}

}  // namespace gpipe::worker
