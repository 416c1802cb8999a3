#include "worker/exported/input_match.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/field_error.h"
#include "common/plan/shape.h"

namespace gpipe::worker {
namespace {

using exported::Size;
using ::testing::HasSubstr;

constexpr int kFloat = 7;  // As torch.export writes it.

exported::UserInput Input(const std::string& name, std::vector<Size> sizes) {
  exported::UserInput input{name, name, {}};
  input.meta.dtype.code = kFloat;
  input.meta.sizes = std::move(sizes);
  return input;
}

// Of a graph, samples of some length for each of its nodes, and a number.
exported::Program GraphProgram() {
  exported::Program program;
  program.user_inputs = {Input("graph", {int64_t{4}, int64_t{4}}), Input("x", {"s0", int64_t{4}, "s1"}),
                         Input("number", {})};
  return program;
}

v1::ModelValue Value(const std::string& name, const Shape& shape) {
  v1::ModelValue value;
  value.set_name(name);
  *value.mutable_shape() = shape;
  value.set_dtype(v1::DATA_TYPE_FLOAT32);
  return value;
}

ProgramData GraphData() {
  return {{Value("a", FixedShape({4, 4})), Value("b", BatchShape({4, 9})), Value("c", FixedShape({}))},
          /*in_order=*/true,
          "train.dataset"};
}

void ExpectRefused(const ProgramData& data, const std::string& field, const std::string& words) {
  const absl::Status status = MatchInputs(GraphProgram(), data).status();
  const std::vector<FieldViolation> violations = FieldViolations(status);
  ASSERT_EQ(violations.size(), 1) << status;
  EXPECT_EQ(violations[0].field, field);
  EXPECT_THAT(violations[0].description, HasSubstr(words));
}

TEST(InputMatchTest, DataGoesToTheInputsInTheirOrder) {
  const auto matched = MatchInputs(GraphProgram(), GraphData());
  ASSERT_TRUE(matched.ok()) << matched.status();
  EXPECT_EQ(matched->at(1).name(), "b");
  ProgramData less = GraphData();
  less.inputs.pop_back();
  ExpectRefused(less, "train.dataset.inputs", "names 2 tensors, but the model's inputs are graph, x, number");
}

TEST(InputMatchTest, InInferenceDataGoesToTheInputsOfItsNames) {
  ProgramData data{{Value("x", BatchShape({4, 2})), Value("other", BatchShape({})), Value("number", FixedShape({})),
                    Value("graph", FixedShape({4, 4}))},
                   /*in_order=*/false,
                   "infer"};
  const auto matched = MatchInputs(GraphProgram(), data);
  ASSERT_TRUE(matched.ok()) << matched.status();
  EXPECT_EQ(matched->at(0).name(), "graph");
  data.inputs[1] = Value("other", FixedShape({}));
  ExpectRefused(data, "infer.unbatched", "'other' is none of the model's inputs, graph, x, number");
  data.inputs.erase(data.inputs.begin(), data.inputs.begin() + 2);
  ExpectRefused(data, "infer.inputs", "has no tensor for the model's input 'x'");
}

TEST(InputMatchTest, SizesThatTheProgramFixesAreTold) {
  ProgramData data = GraphData();
  data.inputs[0] = Value("a", FixedShape({5, 4}));
  ExpectRefused(data, "train.dataset.inputs[0]",
                "'graph' is Float [4, 4], the data's 'a' is Float [5, 4]; sizes that `dynamic_shapes`");
  data = GraphData();
  data.inputs[1] = Value("b", BatchShape({4}));
  ExpectRefused(data, "train.dataset.inputs[1]", "'x' is Float [any, 4, any], the data's 'b' is Float [any, 4]");
}

TEST(InputMatchTest, WhatHasNoBatchHasNoSamples) {
  ProgramData data = GraphData();
  data.inputs[0] = Value("a", BatchShape({4}));
  ExpectRefused(
      data, "model.exported.path",
      "dimension 0 of input 'graph' is always 4; export with a dynamic one, or, where an input has no samples, "
      "name 'a' in train.dataset.unbatched");
  data = GraphData();
  data.inputs[2] = Value("c", BatchShape({}));
  ExpectRefused(data, "model.exported.path", "input 'number' is a single number");
}

TEST(InputMatchTest, WhatHasTheBatchHasSamples) {
  ProgramData data = GraphData();
  exported::Program program = GraphProgram();
  program.user_inputs[0] = Input("graph", {"s0", int64_t{4}});
  const absl::Status status = MatchInputs(program, data).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("train.dataset.unbatched: the model's input 'graph' has the batch"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("unbatched=[\"graph\"]"));
}

}  // namespace
}  // namespace gpipe::worker
