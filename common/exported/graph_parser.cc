#include "common/exported/graph_parser.h"

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/exported/value_names.h"
#include "common/status_macros.h"

namespace gpipe::exported {
namespace {

using nlohmann::json;

absl::Status Malformed(const std::string& what) { return absl::InvalidArgumentError(absl::StrCat("malformed ", what)); }

// A member of an object, or null.
const json& Member(const json& object, const char* name) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

std::string Text(const json& value) { return value.is_string() ? value.get<std::string>() : std::string(); }

absl::StatusOr<std::string> NameOf(const json& value) {
  const std::string name = Text(Member(value, "name"));
  if (name.empty()) return Malformed("value: it has no name");
  return name;
}

// JSON has no infinities; torch writes them as text.
absl::StatusOr<Argument> ParseFloat(const json& value) {
  if (value.is_number()) return Argument{value.get<double>()};
  const std::string text = Text(value);
  if (text == "Infinity") return Argument{std::numeric_limits<double>::infinity()};
  if (text == "-Infinity") return Argument{-std::numeric_limits<double>::infinity()};
  if (text == "NaN") return Argument{std::nan("")};
  return Malformed("number");
}

absl::StatusOr<Argument> ParseInt(const json& value) {
  if (!value.is_number_integer()) return Malformed("integer");
  return Argument{value.get<int64_t>()};
}

absl::StatusOr<int64_t> ParseCode(const json& value) {
  if (!value.is_number_integer()) return Malformed("enumeration value");
  return value.get<int64_t>();
}

absl::StatusOr<Argument> ParseComplex(const json& value) {
  GPIPE_ASSIGN_OR_RETURN(const Argument real, ParseFloat(Member(value, "real")));
  GPIPE_ASSIGN_OR_RETURN(const Argument imaginary, ParseFloat(Member(value, "imag")));
  return Argument{std::complex<double>(std::get<double>(real.value), std::get<double>(imaginary.value))};
}

// `{"as_name": x}`, or `{"as_int": 3}` and the like.
absl::StatusOr<Argument> ParseSymbolic(const json& value) {
  const std::string name = Text(Member(value, "as_name"));
  if (!name.empty()) return Argument{ValueName{name}};
  return ParseArgument(value);
}

absl::StatusOr<Argument> ParseTensor(const json& value) {
  GPIPE_ASSIGN_OR_RETURN(std::string name, NameOf(value));
  return Argument{ValueName{std::move(name)}};
}

absl::StatusOr<Argument> ParseRegion(const json& value) {
  GPIPE_ASSIGN_OR_RETURN(Graph graph, ParseGraph(Member(value, "graph")));
  return Argument{std::shared_ptr<const Graph>(std::make_shared<Graph>(std::move(graph)))};
}

using Parser = absl::StatusOr<Argument> (*)(const json&);

template <Parser kElement>
absl::StatusOr<Argument> ParseList(const json& value) {
  if (!value.is_array()) return Malformed("list");
  ArgumentList list;
  for (const json& element : value) {
    GPIPE_ASSIGN_OR_RETURN(Argument parsed, kElement(element));
    list.push_back(std::move(parsed));
  }
  return Argument{std::move(list)};
}

template <typename Code>
absl::StatusOr<Argument> ParseEnum(const json& value) {
  GPIPE_ASSIGN_OR_RETURN(const int64_t code, ParseCode(value));
  return Argument{Code{code}};
}

absl::StatusOr<Argument> ParseBool(const json& value) {
  if (!value.is_boolean()) return Malformed("boolean");
  return Argument{value.get<bool>()};
}

absl::StatusOr<Argument> ParseString(const json& value) {
  if (!value.is_string()) return Malformed("string");
  return Argument{value.get<std::string>()};
}

absl::StatusOr<Argument> ParseNone(const json&) { return Argument{}; }
absl::StatusOr<Argument> ParseDevice(const json&) { return Argument{DeviceName{}}; }

constexpr std::pair<const char*, Parser> kParsers[] = {
    {"as_none", ParseNone},
    {"as_tensor", ParseTensor},
    {"as_tensors", ParseList<ParseTensor>},
    {"as_optional_tensor", ParseArgument},
    {"as_optional_tensors", ParseList<ParseArgument>},
    {"as_nested_tensors", ParseList<ParseList<ParseTensor>>},
    {"as_int", ParseInt},
    {"as_ints", ParseList<ParseInt>},
    {"as_int_lists", ParseList<ParseList<ParseInt>>},
    {"as_float", ParseFloat},
    {"as_floats", ParseList<ParseFloat>},
    {"as_complex", ParseComplex},
    {"as_bool", ParseBool},
    {"as_bools", ParseList<ParseBool>},
    {"as_string", ParseString},
    {"as_strings", ParseList<ParseString>},
    {"as_sym_int", ParseSymbolic},
    {"as_sym_ints", ParseList<ParseSymbolic>},
    {"as_sym_float", ParseSymbolic},
    {"as_sym_floats", ParseList<ParseSymbolic>},
    {"as_sym_bool", ParseSymbolic},
    {"as_sym_bools", ParseList<ParseSymbolic>},
    {"as_scalar_type", ParseEnum<DtypeCode>},
    {"as_layout", ParseEnum<LayoutCode>},
    {"as_memory_format", ParseEnum<MemoryFormatCode>},
    {"as_device", ParseDevice},
    {"as_graph", ParseRegion},
};

// The names of values that a call's result has, in whichever way it is written.
absl::StatusOr<Output> ParseOutput(const json& value) {
  GPIPE_ASSIGN_OR_RETURN(const Argument argument, ParseArgument(value));
  Output output;
  output.is_tensor = value.is_object() && value.begin().key().find("tensor") != std::string::npos;
  if (const auto* name = std::get_if<ValueName>(&argument.value)) output.names.push_back(name->name);
  const auto* list = std::get_if<ArgumentList>(&argument.value);
  output.is_list = list != nullptr;
  for (const Argument& element : list == nullptr ? ArgumentList() : *list) {
    const auto* name = std::get_if<ValueName>(&element.value);
    output.names.push_back(name == nullptr ? "" : name->name);
  }
  return output;
}

// The module of `L__self__,,M;L__self__fc,fc,torch.nn.Linear` is the second field of the last entry.
std::string ModuleOf(const json& metadata) {
  const std::string stack = Text(Member(metadata, "nn_module_stack"));
  const std::vector<std::string> entries = absl::StrSplit(stack, ';');
  const std::vector<std::string> fields = absl::StrSplit(entries.back(), ',');
  return fields.size() < 2 || absl::StartsWith(fields[1], "_empty") ? "" : fields[1];
}

// Of Python's stack trace the innermost frame outside torch, without the folders of the machine that exported.
std::string SourceOf(const json& metadata) {
  const std::string trace = Text(Member(metadata, "stack_trace"));
  std::string source;
  std::vector<std::string> lines = absl::StrSplit(trace, '\n');
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::vector<std::string> quoted = absl::StrSplit(lines[i], '"');
    if (quoted.size() < 3 || absl::StrContains(quoted[1], "torch/")) continue;
    const std::vector<std::string> path = absl::StrSplit(quoted[1], '/');
    const std::vector<std::string> words = absl::StrSplit(quoted[2], absl::ByAnyChar(" ,"), absl::SkipEmpty());
    source = absl::StrCat(path.back(), ":", words.size() > 1 ? words[1] : "?");
    if (i + 1 < lines.size()) absl::StrAppend(&source, ": ", absl::StripAsciiWhitespace(lines[i + 1]));
  }
  return source;
}

absl::StatusOr<Node> ParseNode(const json& value) {
  Node node;
  node.name = Text(Member(value, "name"));
  node.target = Text(Member(value, "target"));
  if (node.target.empty()) return Malformed("node: it has no target");
  for (const json& input : Member(value, "inputs")) {
    GPIPE_ASSIGN_OR_RETURN(Argument argument, ParseArgument(Member(input, "arg")));
    node.inputs.push_back({Text(Member(input, "name")), std::move(argument)});
  }
  for (const json& output : Member(value, "outputs")) {
    GPIPE_ASSIGN_OR_RETURN(Output parsed, ParseOutput(output));
    node.outputs.push_back(std::move(parsed));
  }
  const json& metadata = Member(value, "metadata");
  node.module = ModuleOf(metadata);
  node.source = SourceOf(metadata);
  return node;
}

std::vector<Size> ParseSizes(const json& value) {
  std::vector<Size> sizes;
  for (const json& size : value) {
    const json& number = Member(size, "as_int");
    sizes.push_back(number.is_number_integer() ? Size(number.get<int64_t>())
                                               : Size(Text(Member(Member(size, "as_expr"), "expr_str"))));
  }
  return sizes;
}

absl::StatusOr<TensorMeta> ParseMeta(const json& value) {
  constexpr int64_t kStrided = 7;  // torch/_export/serde/schema.py, Layout.
  const json &dtype = Member(value, "dtype"), &layout = Member(value, "layout");
  if (!dtype.is_number_integer()) return Malformed("tensor: it has no dtype");
  TensorMeta meta{{dtype.get<int64_t>()}, ParseSizes(Member(value, "sizes")), ParseSizes(Member(value, "strides"))};
  if (meta.strides.size() != meta.sizes.size()) meta.strides.clear();
  meta.strided = layout.is_null() || layout == kStrided;
  return meta;
}

absl::Status ParseValues(const json& tensor_values, Graph& graph) {
  for (const auto& [name, value] : tensor_values.items()) {
    absl::StatusOr<TensorMeta> meta = ParseMeta(value);
    if (!meta.ok()) return Malformed(absl::StrCat("value '", name, "': ", meta.status().message()));
    graph.values.emplace(name, *std::move(meta));
  }
  return absl::OkStatus();
}

absl::Status CheckUses(const std::vector<std::string>& names, const std::set<std::string>& made) {
  for (const std::string& name : names) {
    if (!made.contains(name)) return absl::InvalidArgumentError(absl::StrCat("nothing before it makes '", name, "'"));
  }
  return absl::OkStatus();
}

absl::Status At(const absl::Status& status, const Node& node) {
  return absl::Status(status.code(), absl::StrCat("node ", node.name, " (", node.target, "): ", status.message()));
}

absl::Status CheckOrder(const Graph& graph) {
  std::set<std::string> made(graph.inputs.begin(), graph.inputs.end());
  for (const Node& node : graph.nodes) {
    if (absl::Status status = CheckUses(ValuesReadBy(node), made); !status.ok()) return At(status, node);
    for (const std::string& name : ValuesMadeBy(node)) {
      if (made.insert(name).second) continue;
      return At(absl::InvalidArgumentError(absl::StrCat("'", name, "' is made twice")), node);
    }
  }
  std::vector<std::string> leaving;
  for (const Argument& output : graph.outputs) AppendValues(output, leaving);
  return CheckUses(leaving, made);
}

}  // namespace

absl::StatusOr<Argument> ParseArgument(const json& value) {
  if (!value.is_object() || value.size() != 1) return Malformed("argument");
  for (const auto& [key, parse] : kParsers) {
    if (value.begin().key() == key) return parse(value.begin().value());
  }
  return absl::UnimplementedError(absl::StrCat("arguments of the kind '", value.begin().key(), "' are not supported"));
}

absl::StatusOr<Graph> ParseGraph(const json& value) {
  const json& nodes = Member(value, "nodes");
  if (!nodes.is_array()) return Malformed("graph: it has no nodes");
  Graph graph;
  for (const json& input : Member(value, "inputs")) {
    GPIPE_ASSIGN_OR_RETURN(const Output named, ParseOutput(input));
    graph.inputs.push_back(named.names.empty() ? "" : named.names.front());
  }
  for (const json& node : nodes) {
    absl::StatusOr<Node> parsed = ParseNode(node);
    if (!parsed.ok()) {
      const std::string where = absl::StrCat("node ", Text(Member(node, "name")), " (", Text(Member(node, "target")));
      return absl::Status(parsed.status().code(), absl::StrCat(where, "): ", parsed.status().message()));
    }
    graph.nodes.push_back(*std::move(parsed));
  }
  for (const json& output : Member(value, "outputs")) {
    GPIPE_ASSIGN_OR_RETURN(Argument argument, ParseArgument(output));
    graph.outputs.push_back(std::move(argument));
  }
  GPIPE_RETURN_IF_ERROR(ParseValues(Member(value, "tensor_values"), graph));
  GPIPE_RETURN_IF_ERROR(CheckOrder(graph));
  return graph;
}

}  // namespace gpipe::exported
