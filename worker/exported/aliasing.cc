#include "worker/exported/aliasing.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/exported/value_names.h"
#include "common/status_macros.h"
#include "worker/exported/operator_call.h"

namespace gpipe::worker {
namespace {

using exported::Node;

// Return their input itself or a view of it in some cases, which their schemas do not say.
constexpr std::string_view kMayReturnInput[] = {"aten::dropout",
                                                "aten::feature_dropout",
                                                "aten::alpha_dropout",
                                                "aten::feature_alpha_dropout",
                                                "aten::type_as",
                                                "aten::atleast_1d",
                                                "aten::atleast_2d",
                                                "aten::atleast_3d",
                                                "aten::einsum",
                                                "aten::meshgrid",
                                                "aten::sum_to_size",
                                                "aten::broadcast_tensors",
                                                "aten::cartesian_prod",
                                                "aten::to_dense",
                                                "aten::unsafe_chunk",
                                                "aten::unsafe_split",
                                                "aten::unsafe_split_with_sizes"};
// Write to their running statistics, which their schemas do not say, unless this argument is false.
struct StatisticsWriter {
  std::string_view operator_name;
  const char* argument;
};
constexpr StatisticsWriter kWriteStatistics[] = {{"aten::batch_norm", "training"},
                                                 {"aten::instance_norm", "use_input_stats"}};

template <size_t kSize>
bool Contains(const std::string_view (&names)[kSize], const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// Values in disjoint sets of shared memory.
class Classes {
 public:
  size_t Find(const std::string& value) {
    size_t at = ids_.emplace(value, ids_.size()).first->second;
    if (at == parent_.size()) parent_.push_back(at);
    while (parent_[at] != at) at = parent_[at] = parent_[parent_[at]];
    return at;
  }
  void Join(const std::string& a, const std::string& b) { parent_[Find(a)] = Find(b); }

 private:
  std::map<std::string, size_t> ids_;
  std::vector<size_t> parent_;
};

std::vector<std::string> ValuesOf(const exported::Argument& argument) {
  std::vector<std::string> names;
  exported::AppendValues(argument, names);
  return names;
}

// Names are unique within a graph: those of a region get its place before them.
std::vector<std::string> Scoped(std::vector<std::string> names, const std::string& scope) {
  for (std::string& name : names) name.insert(0, scope);
  return names;
}

// What a region's inputs are bound to, in their order: all that comes after its graphs.
exported::ArgumentList Operands(const Node& node) {
  exported::ArgumentList operands;
  for (const exported::NamedArgument& input : node.inputs) {
    operands.push_back(input.argument);
    if (std::holds_alternative<std::shared_ptr<const exported::Graph>>(input.argument.value)) operands.clear();
  }
  if (operands.size() != 1) return operands;
  const auto* list = std::get_if<exported::ArgumentList>(&operands.front().value);
  return list != nullptr ? exported::ArgumentList(*list) : operands;
}

exported::ArgumentList Results(const Node& node) {
  exported::ArgumentList results;
  for (const exported::Output& output : node.outputs) {
    for (const std::string& name : output.names) {
      name.empty() ? results.emplace_back() : results.emplace_back(exported::Argument{exported::ValueName{name}});
    }
    if (output.names.empty()) results.emplace_back();
  }
  return results;
}

std::vector<std::string> MadeAt(const Node& node, size_t position) {
  std::vector<std::string> names = node.outputs[position].names;
  std::erase(names, "");
  return names;
}

bool WritesStatistics(const Node& node, const std::string& name) {
  for (const StatisticsWriter& writer : kWriteStatistics) {
    if (name != writer.operator_name) continue;
    const exported::Argument* input = exported::FindArgument(node, writer.argument);
    const bool* on = input == nullptr ? nullptr : std::get_if<bool>(&input->value);
    return on == nullptr || *on;
  }
  return false;
}

class Analysis {
 public:
  explicit Analysis(const Archive& archive) : program_(archive.program()) {
    for (const exported::Input& input : program_.inputs) {
      bound_.insert(input.value);
      if (input.kind == exported::InputKind::kUserInput || input.kind == exported::InputKind::kConstant) continue;
      // Two names for one storage are written together.
      const std::string& name = archive.CanonicalName(input.name);
      classes_.Join(input.value, "=" + name);
      state_.push_back(input.value);
    }
  }

  absl::StatusOr<Aliasing> Run() {
    for (size_t i = 0; i < program_.graph.nodes.size(); ++i) {
      GPIPE_RETURN_IF_ERROR(Visit(i, program_.graph.nodes[i], /*scope=*/""));
    }
    return Collect();
  }

 private:
  // `position` in the program of the node, or of the one whose region it is in.
  absl::Status Visit(size_t position, const Node& node, const std::string& scope) {
    GPIPE_ASSIGN_OR_RETURN(const std::optional<c10::OperatorHandle> handle, FindOperator(node));
    if (!handle) return VisitRegions(position, node, scope);
    VisitOperator(position, node, *handle, scope);
    return absl::OkStatus();
  }

  void VisitOperator(size_t position, const Node& node, const c10::OperatorHandle& handle, const std::string& scope) {
    const std::string& name = handle.operator_name().name;
    for (const c10::Argument& argument : handle.schema().arguments()) {
      const exported::Argument* input = exported::FindArgument(node, argument.name());
      if (input == nullptr || argument.alias_info() == nullptr) continue;
      const std::vector<std::string> values = Scoped(ValuesOf(*input), scope);
      if (argument.alias_info()->isWrite()) Write(position, values);
      for (size_t i = 0; i < std::min(node.outputs.size(), handle.schema().returns().size()); ++i) {
        if (handle.schema().returns()[i].alias_info() != nullptr) JoinAll(values, Scoped(MadeAt(node, i), scope));
      }
    }
    if (Contains(kMayReturnInput, name)) {
      JoinAll(Scoped(exported::ValuesReadBy(node), scope), Scoped(exported::ValuesMadeBy(node), scope));
    }
    if (!WritesStatistics(node, name)) return;
    for (const char* statistic : {"running_mean", "running_var"}) {
      const exported::Argument* input = exported::FindArgument(node, statistic);
      if (input != nullptr) Write(position, Scoped(ValuesOf(*input), scope));
    }
  }

  // The memory of what goes in and of what comes out is the same inside; what is written inside is written by the node.
  absl::Status VisitRegions(size_t position, const Node& node, const std::string& scope) {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const auto* region = std::get_if<std::shared_ptr<const exported::Graph>>(&node.inputs[i].argument.value);
      if (region == nullptr) continue;
      const std::string inside = absl::StrCat(scope, node.name, "/", i, "/");
      exported::ArgumentList inputs;
      for (const std::string& input : (*region)->inputs) inputs.push_back({exported::ValueName{input}});
      JoinEach(Operands(node), scope, inputs, inside);
      for (const Node& inner : (*region)->nodes) GPIPE_RETURN_IF_ERROR(Visit(position, inner, inside));
      JoinEach((*region)->outputs, inside, Results(node), scope);
    }
    return absl::OkStatus();
  }

  void JoinEach(const exported::ArgumentList& from, const std::string& from_scope, const exported::ArgumentList& to,
                const std::string& to_scope) {
    for (size_t i = 0; i < std::min(from.size(), to.size()); ++i) {
      JoinAll(Scoped(ValuesOf(from[i]), from_scope), Scoped(ValuesOf(to[i]), to_scope));
    }
  }

  void JoinAll(const std::vector<std::string>& inputs, const std::vector<std::string>& outputs) {
    for (const std::string& input : inputs) {
      for (const std::string& output : outputs) classes_.Join(input, output);
    }
  }

  void Write(size_t position, const std::vector<std::string>& values) {
    for (const std::string& value : values) writes_.emplace_back(position, value);
  }

  Aliasing Collect() {
    std::map<size_t, size_t> last_write;
    for (const auto& [position, value] : writes_) {
      size_t& last = last_write[classes_.Find(value)];
      last = std::max(last, position);
    }
    for (const std::string& value : state_) state_classes_.insert(classes_.Find(value));
    std::map<size_t, std::pair<size_t, size_t>> extent;
    for (size_t i = 0; i < program_.graph.nodes.size(); ++i) {
      const Node& node = program_.graph.nodes[i];
      for (const std::string& value : exported::ValuesMadeBy(node))
        Extend(value, i, /*bound=*/false, last_write, extent);
      for (const std::string& value : exported::ValuesReadBy(node)) {
        if (bound_.contains(value)) Extend(value, i, /*bound=*/true, last_write, extent);
      }
    }
    // What the program returns is used at its end.
    for (const exported::UserOutput& output : program_.user_outputs) {
      const size_t end = program_.graph.nodes.size() - 1;
      for (const std::string& value : ValuesOf(output.value)) {
        if (bound_.contains(value)) Extend(value, end, /*bound=*/true, last_write, extent);
      }
    }
    for (const auto& [number, nodes] : extent) result_.unbroken.push_back(nodes);
    return std::move(result_);
  }

  // The value is made, or a bound one used, at this node.
  void Extend(const std::string& value, size_t position, bool bound, const std::map<size_t, size_t>& last_write,
              std::map<size_t, std::pair<size_t, size_t>>& extent) {
    const auto write = last_write.find(classes_.Find(value));
    if (write == last_write.end()) return;
    result_.written.emplace(value, write->first);
    if (state_classes_.contains(write->first)) result_.written_state.insert(value);
    auto& [first, last] = extent.emplace(write->first, std::pair(position, write->second)).first->second;
    first = std::min(first, position);
    if (bound) last = std::max(last, position);
  }

  const exported::Program& program_;
  std::set<std::string> bound_;     // The program's inputs of every kind.
  std::vector<std::string> state_;  // Its parameters and buffers.
  std::set<size_t> state_classes_;
  Classes classes_;
  std::vector<std::pair<size_t, std::string>> writes_;
  Aliasing result_;
};

}  // namespace

absl::StatusOr<Aliasing> FindAliasing(const Archive& archive) { return Analysis(archive).Run(); }

}  // namespace gpipe::worker
