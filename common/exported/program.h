#ifndef GPIPE_COMMON_EXPORTED_PROGRAM_H_
#define GPIPE_COMMON_EXPORTED_PROGRAM_H_

#include <complex>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace gpipe::exported {

// A program as torch.export.save writes it (models/model.json of the archive, schema version 8): calls of operators on
// named values, in an order in which they can be done. Plain data; nothing here knows LibTorch.

// A tensor, or a number that was computed, by its name in the graph. Names are unique within a graph.
struct ValueName {
  std::string name;
  bool operator==(const ValueName&) const = default;
};

// Numbers as the file has them, which are not LibTorch's own.
struct DtypeCode {
  int64_t code;
};
struct LayoutCode {
  int64_t code;
};
struct MemoryFormatCode {
  int64_t code;
};
// Where the exporting machine had it. Never obeyed: a stage has a device of its own.
struct DeviceName {};

struct Graph;
struct Argument;
using ArgumentList = std::vector<Argument>;

struct Argument {
  std::variant<std::monostate, ValueName, bool, int64_t, double, std::complex<double>, std::string, DtypeCode,
               LayoutCode, MemoryFormatCode, DeviceName, ArgumentList, std::shared_ptr<const Graph>>
      value;  // monostate is None.
};

struct NamedArgument {
  std::string name;  // In the operator's schema; empty for size arithmetic and regions.
  Argument argument;
};

// What a call returns at one position: one value, a list of values, or nothing that is used.
struct Output {
  bool is_list = false;
  bool is_tensor = true;  // Else a number, such as a size.
  std::vector<std::string> names;
};

struct Node {
  std::string name;
  std::string target;  // `torch.ops.aten.linear.default`
  std::vector<NamedArgument> inputs;
  std::vector<Output> outputs;
  std::string module;  // `transformer.h.4.attn`; empty for the model itself.
  std::string source;  // `model.py:12: x = self.fc(x)`, the innermost line outside torch; may be empty.
};

// A size that is always the same, or an expression in the sizes of the inputs (size_expression.h).
using Size = std::variant<int64_t, std::string>;

// What is known of a tensor before anything runs.
struct TensorMeta {
  DtypeCode dtype{};
  std::vector<Size> sizes;
  std::vector<Size> strides;  // As many; none where they are not told.
  bool strided = true;        // Else sparse, or of another layout without strides.
};

struct Graph {
  std::vector<std::string> inputs;
  std::vector<Node> nodes;
  ArgumentList outputs;
  std::map<std::string, TensorMeta> values;  // Its tensors by name, as far as torch.export tells of them.
};

enum class InputKind { kParameter, kBuffer, kConstantTensor, kUserInput, kConstant };

// What a graph input is bound to.
struct Input {
  InputKind kind = InputKind::kUserInput;
  std::string value;       // The graph input; for kConstant too.
  std::string name;        // Fully qualified name of a parameter, buffer or constant; a user input's own name.
  bool persistent = true;  // Buffers: whether state_dict() has it.
};

// Whether state_dict() has it.
inline bool IsInState(const Input& input) {
  return input.kind == InputKind::kParameter || (input.kind == InputKind::kBuffer && input.persistent);
}

struct UserInput {
  std::string name;  // As in the model's forward().
  std::string value;
  TensorMeta meta;
};

struct UserOutput {
  std::string name;  // A key of the dict that the model returns, else `output`, `output_1`, ...
  Argument value;
};

struct Program {
  Graph graph;
  std::vector<Input> inputs;             // In the order of graph.inputs.
  std::vector<UserInput> user_inputs;    // The tensors among them, in the model's order.
  std::vector<UserOutput> user_outputs;  // The tensors among them.
};

// INVALID_ARGUMENT says what is wrong and where: not JSON, a schema version that is not known, a program that was
// decomposed (its gradients would be wrong), an input that is no tensor, no output that is one, a value that is used
// before it is made.
absl::StatusOr<Program> ParseProgram(std::string_view json);

}  // namespace gpipe::exported

#endif  // GPIPE_COMMON_EXPORTED_PROGRAM_H_
