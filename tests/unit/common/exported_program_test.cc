#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/exported/program.h"
#include "common/exported/tensor_table.h"
#include "nlohmann/json.hpp"

namespace gpipe::exported {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// x -> relu -> {"y": ...}, as torch.export writes it.
json Relu() {
  return json::parse(R"json({
    "schema_version": {"major": 8, "minor": 17}, "verifiers": ["TRAINING"],
    "graph_module": {
      "graph": {
        "inputs": [{"as_tensor": {"name": "x"}}],
        "outputs": [{"as_tensor": {"name": "relu"}}],
        "nodes": [{
          "name": "relu", "target": "torch.ops.aten.relu.default",
          "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}],
          "outputs": [{"as_tensor": {"name": "relu"}}],
          "metadata": {
            "nn_module_stack": "L__self__,,m.M;L__self__act,act,torch.nn.modules.activation.ReLU",
            "stack_trace": "File \"/home/me/model.py\", line 8, in forward\n    return self.act(x)\n  File \"/v/torch/nn/f.py\", line 9, in relu\n    return torch.relu(x)"
          }}],
        "tensor_values": {"x": {"dtype": 7, "sizes": [{"as_expr": {}}, {"as_int": 3}]}}
      },
      "signature": {
        "input_specs": [{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}],
        "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "relu"}}}}]
      },
      "module_call_graph": [{"fqn": "", "signature": {"out_spec":
        "[1, {\"type\": \"builtins.dict\", \"context\": \"[\\\"y\\\"]\", \"children_spec\": [{\"type\": null, \"context\": null, \"children_spec\": []}]}]"}}]
    }})json");
}

json& Node(json& program) { return program["graph_module"]["graph"]["nodes"][0]; }

void ExpectRefused(const json& program, const std::string& why) {
  const auto parsed = ParseProgram(program.dump());
  ASSERT_FALSE(parsed.ok());
  EXPECT_THAT(parsed.status().message(), HasSubstr(why));
}

TEST(ExportedProgramTest, ReadsWhatTorchWrites) {
  const auto program = ParseProgram(Relu().dump());
  ASSERT_TRUE(program.ok()) << program.status();
  ASSERT_EQ(program->graph.nodes.size(), 1u);
  EXPECT_EQ(program->graph.nodes[0].module, "act");
  EXPECT_EQ(program->graph.nodes[0].source, "model.py:8: return self.act(x)");
  ASSERT_EQ(program->user_inputs.size(), 1u);
  EXPECT_EQ(program->user_inputs[0].meta.sizes[1], Size(int64_t{3}));
  EXPECT_EQ(program->user_inputs[0].meta.sizes[0], Size(std::string())) << "an expression";
  ASSERT_EQ(program->user_outputs.size(), 1u);
  EXPECT_EQ(program->user_outputs[0].name, "y");
}

TEST(ExportedProgramTest, EveryTensorIsDescribed) {
  json program = Relu();
  json& values = program["graph_module"]["graph"]["tensor_values"];
  values["relu"] = {{"dtype", 13},
                    {"sizes", {{{"as_expr", {{"expr_str", "Symbol('s77', integer=True)"}}}}, {{"as_int", 3}}}}};
  const auto parsed = ParseProgram(program.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_TRUE(parsed->graph.values.contains("relu"));
  EXPECT_EQ(parsed->graph.values.at("relu").dtype.code, 13);
  EXPECT_THAT(parsed->graph.values.at("relu").sizes,
              ElementsAre(Size("Symbol('s77', integer=True)"), Size(int64_t{3})));
  values["relu"].erase("dtype");
  ExpectRefused(program, "value 'relu'");
}

TEST(ExportedProgramTest, OutputsThatAreNoTensorsAreLeftOut) {
  json program = Relu();
  json& outputs = program["graph_module"]["signature"]["output_specs"];
  const json relu = outputs[0];
  program["graph_module"]["module_call_graph"] = json::array();  // No names.
  outputs = {json::parse(R"({"user_output": {"arg": {"as_none": true}}})"), relu};
  const auto parsed = ParseProgram(program.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->user_outputs.size(), 1u);
  EXPECT_EQ(parsed->user_outputs[0].name, "output_1");
  outputs.erase(1);
  ExpectRefused(program, "no output that is a tensor");
}

TEST(ExportedProgramTest, AnotherVersionIsRefused) {
  json program = Relu();
  program["schema_version"]["major"] = 9;
  ExpectRefused(program, "schema version 9");
}

TEST(ExportedProgramTest, ADecomposedProgramIsRefused) {
  json program = Relu();
  program["verifiers"] = {"ATEN"};
  ExpectRefused(program, "was decomposed");
}

TEST(ExportedProgramTest, AnInputNeedHaveNoBatch) {
  json program = Relu();
  json& sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"];
  sizes[0] = {{"as_int", 4}};
  EXPECT_EQ(ParseProgram(program.dump())->user_inputs.at(0).meta.sizes.at(0), Size(int64_t{4}));
  sizes = json::array();
  EXPECT_TRUE(ParseProgram(program.dump())->user_inputs.at(0).meta.sizes.empty());
}

TEST(ExportedProgramTest, AValueThatNothingMakesIsRefused) {
  json program = Relu();
  Node(program)["inputs"][0]["arg"] = {{"as_tensor", {{"name", "z"}}}};
  ExpectRefused(program, "node relu (torch.ops.aten.relu.default): nothing before it makes 'z'");
}

TEST(ExportedProgramTest, AnArgumentOfAnUnknownKindIsRefused) {
  json program = Relu();
  Node(program)["inputs"][0]["arg"] = {{"as_custom_obj", {{"name", "z"}}}};
  ExpectRefused(program, "arguments of the kind 'as_custom_obj' are not supported");
}

TEST(ExportedProgramTest, WhatIsNoProgramIsRefused) {
  for (const char* text : {"", "[]", "{}", "{\"schema_version\": 8}", "nonsense"}) {
    EXPECT_FALSE(ParseProgram(text).ok()) << text;
  }
  EXPECT_FALSE(ParseProgram(std::string(100000, '[')).ok());
}

// It is JSON within a string, with a depth of its own.
TEST(ExportedProgramTest, ADeepDescriptionOfTheOutputsIsNoHarm) {
  std::string deep = R"({"type": null})";
  for (int i = 0; i < 20000; ++i) deep = R"({"type": "t", "context": "", "children_spec": [)" + deep + "]}";
  json program = Relu();
  program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = "[1, " + deep + "]";
  const auto parsed = ParseProgram(program.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->user_outputs[0].name, "output");
}

// Whatever single member is missing, the answer is a status.
void RemoveEach(json& value, const json& whole) {
  if (value.is_array()) {
    for (json& element : value) RemoveEach(element, whole);
  }
  if (!value.is_object()) return;
  const json copy = value;
  for (const auto& [key, member] : copy.items()) {
    value.erase(key);
    ParseProgram(whole.dump()).IgnoreError();
    value[key] = member;
    RemoveEach(value[key], whole);
  }
}

TEST(ExportedProgramTest, AMissingMemberNeverCrashes) {
  json program = Relu();
  RemoveEach(program, program);
  EXPECT_TRUE(ParseProgram(program.dump()).ok());
}

TEST(ExportedTensorTableTest, ReadsEntriesAndRefusesOthers) {
  json table = json::parse(R"json({"config": {"fc.weight": {"path_name": "weight_0", "use_pickle": false, "tensor_meta":
      {"dtype": 7, "sizes": [{"as_int": 2}], "strides": [{"as_int": 1}], "storage_offset": {"as_int": 0},
       "requires_grad": true, "layout": 7}}}})json");
  const auto parsed = ParseTensorTable(table.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->at("fc.weight").record, "weight_0");
  table["config"]["fc.weight"]["tensor_meta"]["sizes"][0]["as_int"] = -2;
  EXPECT_THAT(ParseTensorTable(table.dump()).status().message(), HasSubstr("tensor 'fc.weight'"));
  table["config"]["fc.weight"]["use_pickle"] = true;
  EXPECT_THAT(ParseTensorTable(table.dump()).status().message(), HasSubstr("subclass"));
}

}  // namespace
}  // namespace gpipe::exported
