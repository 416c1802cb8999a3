#ifndef GPIPE_TESTS_UNIT_ORCHESTRATOR_PLAN_TESTING_H_
#define GPIPE_TESTS_UNIT_ORCHESTRATOR_PLAN_TESTING_H_

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/plan/shape.h"
#include "common/spec/reader.h"
#include "common/spec/validator.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {

// Specs, and what a worker would find out about them.

using LayerInfos = std::vector<v1::LayerInfo>;  // As cluster/inspector.h has it.

inline v1::JobSpec ParseSpec(const std::string& yaml) {
  v1::JobSpec spec;
  spec::SourceMap lines;
  absl::Status status = spec::ReadYaml(yaml, spec, lines);
  if (status.ok()) status = spec::Validate(spec);
  EXPECT_TRUE(status.ok()) << status;
  return spec::WithDefaults(spec);
}

inline const char* const kTrainYaml = R"(
name: t
model:
  sequential:
    - linear: {in_features: 4, out_features: 8}
    - relu: {}
    - linear: {in_features: 8, out_features: 3}
pipeline: {balance: [2, 1], chunks: 4}
train:
  dataset: {random: {samples: 20, input_shape: [4], classes: 3, seed: 1}}
  batch_size: 8
  steps: 10
  loss: {cross_entropy: {}}
  optimizer: {sgd: {lr: 0.1}}
)";

// The same model, for a client that asks for its rounds.
inline const char* const kClientYaml = R"(
name: asked
model: {sequential: [{linear: {in_features: 4, out_features: 8}}, {relu: {}}, {linear: {in_features: 8, out_features: 3}}]}
pipeline: {balance: [2, 1], chunks: 4}
train:
  dataset: {client: {inputs: [{name: input, dtype: float32, shape: [4]}], exchange: /dev/shm/gpipe-test}}
  batch_size: 8
  optimizer: {sgd: {lr: 0.1}}
)";

// A model with a skip over five of its nine layers.
inline const char* const kSkipYaml = R"(
name: skip
model:
  sequential:
    - linear: {in_features: 32, out_features: 64}
    - stash: {name: x0}
    - relu: {}
    - linear: {in_features: 64, out_features: 64}
    - tanh: {}
    - linear: {in_features: 64, out_features: 64}
    - pop_add: {name: x0}
    - layer_norm: {normalized_shape: [64]}
    - linear: {in_features: 64, out_features: 1}
pipeline: {balance: [3, 2, 4], chunks: 5, checkpoint: always}
train:
  dataset: {path: regression.safetensors, inputs: [x], target: y}
  batch_size: 32
  steps: 20
  loss: {mse: {}}
  optimizer: {adam: {lr: 0.001}}
)";

// Data of so many samples of one input.
inline InputFacts Facts(int64_t samples, const std::vector<int64_t>& shape) {
  InputFacts facts;
  facts.samples = samples;
  v1::ModelValue& input = facts.inputs.emplace_back();
  *input.mutable_shape() = BatchShape(shape);
  input.set_dtype(v1::DATA_TYPE_FLOAT32);
  facts.target_dtype = v1::DATA_TYPE_INT64;
  return facts;
}

// The values that a layer of a list reads and makes, named as a worker names them.
inline void NameValues(const v1::Layer& spec, int index, bool trained, const std::vector<int64_t>& shape,
                       v1::LayerInfo& layer) {
  const auto make = [&](const std::string& name) {
    v1::ModelValue& value = *layer.add_makes();
    value.set_name(name);
    *value.mutable_shape() = BatchShape(shape);
    value.set_dtype(v1::DATA_TYPE_FLOAT32);
    value.set_requires_grad(trained);
  };
  layer.add_reads(index == 0 ? "input" : absl::StrCat("layer.", index - 1));
  make(absl::StrCat("layer.", index));
  if (spec.has_stash()) make(absl::StrCat("skip.", spec.stash().name()));
  if (spec.has_pop_add()) layer.add_reads(absl::StrCat("skip.", spec.pop_add().name()));
  if (spec.has_pop_cat()) layer.add_reads(absl::StrCat("skip.", spec.pop_cat().name()));
}

// Made-up layers for a spec: linear layers have parameters, of which the first `frozen` are not trained; all keep the
// shape of the last linear one.
inline LayerInfos LayersFor(const v1::Model& model, std::vector<int64_t> shape, int frozen = 0) {
  LayerInfos layers;
  bool trained = false;
  for (int i = 0; i < model.sequential_size(); ++i) {
    v1::LayerInfo layer;
    layer.set_kind(spec::LayerKind(model.sequential(i)));
    if (model.sequential(i).has_linear()) {
      shape.back() = model.sequential(i).linear().out_features();
      layer.set_parameter_count(model.sequential(i).linear().in_features() * shape.back());
      layer.set_parameter_bytes(4 * layer.parameter_count());
      layer.set_trainable_count(i < frozen ? 0 : layer.parameter_count());
      trained = trained || i >= frozen;
    }
    NameValues(model.sequential(i), i, trained, shape, layer);
    layers.push_back(layer);
  }
  if (!layers.empty()) *layers.back().add_outputs() = layers.back().makes(0);
  return layers;
}

}  // namespace gpipe::orchestrator

#endif  // GPIPE_TESTS_UNIT_ORCHESTRATOR_PLAN_TESTING_H_
