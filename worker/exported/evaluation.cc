#include "worker/exported/evaluation.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/exported/operator_call.h"
#include "worker/exported/value_index.h"

namespace gpipe::worker {
namespace {

using exported::Graph;
using exported::Node;

constexpr char kSame[] = "same";  // client/python/gpipe/_export/modes.py

std::optional<c10::OperatorHandle> OperatorOf(const Node& node) { return FindOperator(node).value_or(std::nullopt); }

// The node, or one in a region of it, that draws random numbers in evaluation; null if none does.
const Node* RandomIn(const Node& node) {
  if (const auto handle = OperatorOf(node)) return IsRandomInEvaluation(*handle) ? &node : nullptr;
  for (const exported::NamedArgument& input : node.inputs) {
    const auto* region = std::get_if<std::shared_ptr<const Graph>>(&input.argument.value);
    if (region == nullptr) continue;
    for (const Node& inner : (*region)->nodes) {
      if (const Node* found = RandomIn(inner)) return found;
    }
  }
  return nullptr;
}

bool Writes(const Node& node) {
  const auto handle = OperatorOf(node);
  return handle && handle->schema().is_mutable();
}

// Of the nodes that the outputs come of, or that write to something.
const Node* RandomIn(const exported::Program& program) {
  const ValueIndex index(program);
  std::vector<bool> used(index.size());
  for (const exported::UserOutput& output : program.user_outputs) {
    for (const size_t value : index.ValuesOf(output.value)) used[value] = true;
  }
  const Node* found = nullptr;
  for (size_t i = program.graph.nodes.size(); i-- > 0;) {
    const Node& node = program.graph.nodes[i];
    const auto is_used = [&](size_t value) { return used[value]; };
    if (!std::ranges::any_of(index.MadeBy(i), is_used) && !Writes(node)) continue;
    for (const size_t value : index.ReadBy(i)) used[value] = true;
    if (const Node* random = RandomIn(node)) found = random;
  }
  return found;
}

}  // namespace

absl::Status CheckEvaluates(const Archive& archive) {
  const std::string& note = archive.evaluation_note();
  if (archive.is_evaluation() || note == kSame) return absl::OkStatus();
  if (!note.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("gpipe.export has saved the model for training only, as there is no program of it ", note));
  }
  const Node* random = RandomIn(archive.program());
  if (random == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the model draws random numbers (", random->target, random->source.empty() ? "" : " at ", random->source,
      "), and its file does not say whether it does so in evaluation; save it with gpipe.export, which also saves what "
      "the model does in eval()"));
}

}  // namespace gpipe::worker
