#include "common/exported/program.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/exported/graph_parser.h"
#include "common/exported/json_find.h"
#include "common/exported/value_names.h"
#include "common/json_object.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace gpipe::exported {
namespace {

using nlohmann::json;

constexpr int64_t kSchemaMajor = 8;
constexpr int kMaxDepth = 200;  // The parsers below are recursive.

absl::Status Malformed(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed program: ", what));
}

absl::StatusOr<json> ParseRoot(std::string_view text) {
  absl::StatusOr<json> value = ParseJsonObject(text, kMaxDepth);
  if (!value.ok()) return Malformed(absl::StrCat("it ", value.status().message()));
  return value;
}

// Of a description within the program; null when it is no JSON.
json ParseInner(const std::string& text) { return ParseJson(text, kMaxDepth).value_or(json()); }

std::string TextAt(const json& value, const char* pointer) {
  const json& text = Find(value, pointer);
  return text.is_string() ? text.get<std::string>() : "";
}

absl::Status CheckVersion(const json& root) {
  const json& major = Find(root, "/schema_version/major");
  if (major != kSchemaMajor) {
    return absl::InvalidArgumentError(absl::StrCat("schema version ", major.dump(),
                                                   " of torch.export is not known here; save the model with the ",
                                                   "torch of this cluster (schema version ", kSchemaMajor, ")"));
  }
  const json& verifiers = Find(root, "/verifiers");
  if (verifiers != json::array({"TRAINING"})) {
    return absl::InvalidArgumentError(
        absl::StrCat("the program was decomposed after its export (", verifiers.dump(),
                     "), which loses gradients; save what torch.export.export returns as it is"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Input> ParseInput(const json& value) {
  Input input;
  if (value.contains("parameter")) {
    input = {InputKind::kParameter, TextAt(value, "/parameter/arg/name"), TextAt(value, "/parameter/parameter_name")};
  } else if (value.contains("buffer")) {
    input = {InputKind::kBuffer, TextAt(value, "/buffer/arg/name"), TextAt(value, "/buffer/buffer_name"),
             Find(value, "/buffer/persistent") == true};
  } else if (value.contains("tensor_constant")) {
    input = {InputKind::kConstantTensor, TextAt(value, "/tensor_constant/arg/name"),
             TextAt(value, "/tensor_constant/tensor_constant_name"), false};
  } else if (value.contains("user_input")) {
    const std::string name = TextAt(value, "/user_input/arg/as_tensor/name");
    if (name.empty()) return absl::InvalidArgumentError("an input of the model that is no tensor is not supported");
    input = {InputKind::kUserInput, name, name};
  } else if (value.contains("constant_input")) {
    input = {InputKind::kConstant, TextAt(value, "/constant_input/name"), TextAt(value, "/constant_input/name")};
  } else {
    return absl::UnimplementedError(absl::StrCat("inputs like ", value.dump().substr(0, 80), " are not supported"));
  }
  if (input.value.empty() || input.name.empty()) return Malformed("an input has no name");
  return input;
}

absl::StatusOr<UserInput> DescribeUserInput(const Input& input, const Program& program) {
  const auto found = program.graph.values.find(input.value);
  if (found == program.graph.values.end()) return Malformed(absl::StrCat("nothing is said of the input ", input.name));
  return UserInput{input.name, input.value, found->second};
}

// Names of the leaves of what the model returns, from torch's description of the structure: keys of dicts, positions of
// tuples; for a single tensor one empty name.
void NameLeaves(const json& spec, const std::string& path, std::vector<std::string>& names) {
  const json& children = Find(spec, "/children_spec");
  if (TextAt(spec, "/type").empty()) return names.push_back(path);
  const json keys = ParseInner(TextAt(spec, "/context"));
  for (size_t i = 0; i < children.size(); ++i) {
    const bool keyed = keys.is_array() && keys.size() == children.size() && keys[i].is_string();
    const std::string key = keyed ? keys[i].get<std::string>() : absl::StrCat(i);
    NameLeaves(children[i], path.empty() ? key : absl::StrCat(path, ".", key), names);
  }
}

std::vector<std::string> LeafNames(const json& root) {
  const std::string text = TextAt(root, "/graph_module/module_call_graph/0/signature/out_spec");
  const json spec = ParseInner(text);
  std::vector<std::string> names;
  if (spec.is_array() && spec.size() == 2) NameLeaves(spec[1], "", names);
  return names;
}

// A position or nothing is no name for a person: `output`, `output_1`.
std::string OutputName(const std::string& leaf, size_t position) {
  int number = 0;
  if (!leaf.empty() && !absl::SimpleAtoi(leaf, &number)) return leaf;
  return position == 0 ? "output" : absl::StrCat("output_", position);
}

absl::Status ParseSignature(const json& root, Program& program) {
  for (const json& spec : Find(root, "/graph_module/signature/input_specs")) {
    GPIPE_ASSIGN_OR_RETURN(Input input, ParseInput(spec));
    if (input.kind == InputKind::kUserInput) {
      GPIPE_ASSIGN_OR_RETURN(UserInput user, DescribeUserInput(input, program));
      program.user_inputs.push_back(std::move(user));
    }
    program.inputs.push_back(std::move(input));
  }
  const std::vector<std::string> leaves = LeafNames(root);
  size_t position = 0;
  for (const json& spec : Find(root, "/graph_module/signature/output_specs")) {
    if (!spec.contains("user_output")) return absl::UnimplementedError("the program writes to its inputs");
    const size_t leaf = position++;
    if (!Find(spec, "/user_output/arg").contains("as_tensor")) continue;
    GPIPE_ASSIGN_OR_RETURN(Argument value, ParseArgument(Find(spec, "/user_output/arg")));
    program.user_outputs.push_back({OutputName(leaf < leaves.size() ? leaves[leaf] : "", leaf), std::move(value)});
  }
  return absl::OkStatus();
}

absl::Status CheckSignature(const Program& program) {
  if (program.user_inputs.empty()) return absl::InvalidArgumentError("the model has no input");
  if (program.inputs.size() != program.graph.inputs.size()) return Malformed("inputs and signature differ");
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const std::string& value = program.graph.inputs[i];
    if (!value.empty() && value != program.inputs[i].value) return Malformed("inputs and signature differ");
  }
  std::vector<std::string> returned;
  for (const Argument& output : program.graph.outputs) AppendValues(output, returned);
  std::set<std::string> names;
  for (const UserOutput& output : program.user_outputs) {
    if (!names.insert(output.name).second) return Malformed(absl::StrCat("two outputs '", output.name, "'"));
    std::vector<std::string> values;
    AppendValues(output.value, values);
    const auto is_returned = [&](const std::string& value) { return absl::c_linear_search(returned, value); };
    if (!absl::c_all_of(values, is_returned)) return Malformed("outputs and signature differ");
  }
  if (program.user_outputs.empty()) return absl::InvalidArgumentError("the model has no output that is a tensor");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Program> ParseProgram(std::string_view text) {
  GPIPE_ASSIGN_OR_RETURN(const json root, ParseRoot(text));
  GPIPE_RETURN_IF_ERROR(CheckVersion(root));
  Program program;
  GPIPE_ASSIGN_OR_RETURN(program.graph, ParseGraph(Find(root, "/graph_module/graph")));
  GPIPE_RETURN_IF_ERROR(ParseSignature(root, program));
  GPIPE_RETURN_IF_ERROR(CheckSignature(program));
  return program;
}

}  // namespace gpipe::exported
