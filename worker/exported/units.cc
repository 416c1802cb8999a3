#include "worker/exported/units.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/exported/value_names.h"
#include "common/status_macros.h"
#include "worker/exported/aliasing.h"
#include "worker/exported/operator_call.h"

namespace gpipe::worker {
namespace {

using exported::InputKind;
using exported::Node;

// No random numbers, nothing written: the same wherever it is done. Regions are not looked into.
bool IsPure(const Node& node) {
  if (node.target.starts_with("torch.ops.higher_order.")) return false;
  const auto handle = FindOperator(node);
  if (!handle.ok()) return false;
  if (!handle->has_value()) return true;  // Arithmetic on sizes.
  return !(*handle)->hasTag(at::Tag::nondeterministic_seeded) && !(*handle)->schema().is_mutable();
}

}  // namespace

absl::StatusOr<Units> Units::Find(const Archive& archive) {
  GPIPE_ASSIGN_OR_RETURN(const Aliasing aliasing, FindAliasing(archive));
  Units units(archive.program());
  units.written_ = aliasing.written;
  units.written_state_ = aliasing.written_state;
  units.FindRepeated();
  units.FindUses();
  units.FindModules();
  units.FindCuts(aliasing.unbroken);
  return units;
}

void Units::FindRepeated() {
  std::set<std::string> common;
  for (const exported::Input& input : program_.inputs) {
    if (input.kind != InputKind::kParameter && !written_.contains(input.value)) common.insert(input.value);
  }
  for (const Node& node : program_.graph.nodes) {
    const std::vector<std::string> read = exported::ValuesReadBy(node), made = exported::ValuesMadeBy(node);
    const bool repeated =
        IsPure(node) &&
        std::all_of(read.begin(), read.end(), [&](const auto& name) { return common.contains(name); }) &&
        std::none_of(made.begin(), made.end(), [&](const auto& name) { return written_.contains(name); });
    repeated_.push_back(repeated);
    if (repeated) common.insert(made.begin(), made.end());
  }
}

void Units::FindUses() {
  const std::vector<Node>& nodes = program_.graph.nodes;
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const exported::Output& output : nodes[i].outputs) {
      for (const std::string& name : output.names) {
        maker_.emplace(name, i);
        if (!output.is_tensor) numbers_.insert(name);
      }
    }
    for (const std::string& name : exported::ValuesReadBy(nodes[i])) {
      if (!repeated_[i]) last_use_[name] = i;
    }
  }
  // A repeated node is done where it is needed: what it reads is repeated too, or there already.
  for (const exported::UserOutput& output : program_.user_outputs) {
    std::vector<std::string> names;
    exported::AppendValues(output.value, names);
    for (const std::string& name : names) last_use_[name] = nodes.size();
  }
}

void Units::FindModules() {
  std::set<std::string> known;
  for (size_t i = 0; i < program_.graph.nodes.size(); ++i) {
    if (repeated_[i]) continue;
    std::string path;
    for (const absl::string_view name : absl::StrSplit(program_.graph.nodes[i].module, '.', absl::SkipEmpty())) {
      absl::StrAppend(&path, path.empty() ? "" : ".", name);
      if (known.insert(path).second) modules_[i].push_back(path);
    }
  }
}

void Units::FindCuts(const std::vector<std::pair<size_t, size_t>>& unbroken) {
  const std::vector<Node>& nodes = program_.graph.nodes;
  std::vector<bool> allowed(nodes.size(), true);
  const auto forbid = [&](size_t first, size_t last) {
    for (size_t i = first; i <= std::min(last, nodes.size() - 1); ++i) allowed[i] = false;
  };
  for (const auto& [first, last] : unbroken) forbid(first + 1, last);
  for (const std::string& number : numbers_) {
    const auto use = last_use_.find(number);
    const auto maker = maker_.find(number);
    if (use != last_use_.end() && !repeated_[maker->second]) forbid(maker->second + 1, use->second);
  }
  // Before a node that belongs to nobody a cut is the same as behind it.
  bool owned = false;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (repeated_[i]) continue;
    if (owned && allowed[i]) cuts_.push_back(i);
    owned = true;
  }
}

bool Units::IsRepeated(const std::string& value) const {
  const auto maker = maker_.find(value);
  return maker != maker_.end() && repeated_[maker->second];
}

std::vector<std::string> Units::Crossing(size_t position) const {
  std::vector<std::pair<size_t, std::string>> crossing;
  for (const auto& [value, use] : last_use_) {
    const auto maker = maker_.find(value);
    if (maker == maker_.end() || maker->second >= position || use < position || repeated_[maker->second]) continue;
    crossing.emplace_back(maker->second, value);
  }
  std::sort(crossing.begin(), crossing.end());
  std::vector<std::string> names;
  for (auto& [maker, name] : crossing) names.push_back(std::move(name));
  return names;
}

void Units::AddRepeated(const std::string& value, std::set<size_t>& nodes) const {
  if (!IsRepeated(value) || !nodes.insert(maker_.at(value)).second) return;
  for (const std::string& read : exported::ValuesReadBy(program_.graph.nodes[maker_.at(value)])) {
    AddRepeated(read, nodes);
  }
}

GraphLayer::Part Units::PartOf(size_t first, size_t last, const std::vector<std::string>& outputs) const {
  std::set<size_t> nodes;
  for (size_t i = first; i < last; ++i) {
    if (repeated_[i]) continue;
    nodes.insert(i);
    for (const std::string& name : exported::ValuesReadBy(program_.graph.nodes[i])) AddRepeated(name, nodes);
  }
  if (last == program_.graph.nodes.size()) {
    for (const std::string& name : outputs) AddRepeated(name, nodes);
  }
  GraphLayer::Part part;
  part.written = written_;
  part.written_state = written_state_;
  std::set<std::string> made, read;
  for (const size_t i : nodes) {
    for (const std::string& name : exported::ValuesMadeBy(program_.graph.nodes[i])) made.insert(name);
    for (const std::string& name : exported::ValuesReadBy(program_.graph.nodes[i])) read.insert(name);
  }
  part.nodes.assign(nodes.begin(), nodes.end());
  const bool is_last = last == program_.graph.nodes.size();
  if (is_last) read.insert(outputs.begin(), outputs.end());  // Also those that it passes on.
  for (const exported::UserInput& input : program_.user_inputs) {
    if (read.contains(input.value)) part.entering.push_back(input.value);
  }
  for (std::string& name : Crossing(first)) {
    if (read.contains(name)) part.entering.push_back(std::move(name));
  }
  if (is_last) {
    part.leaving = outputs;
    return part;
  }
  for (std::string& name : Crossing(last)) {
    if (made.contains(name)) part.leaving.push_back(std::move(name));
  }
  return part;
}

Units::Modules Units::ModulesOf(size_t first, size_t last) const {
  while (first < last && repeated_[first]) ++first;
  Modules modules;
  for (auto found = modules_.lower_bound(first); found != modules_.end() && found->first < last; ++found) {
    std::vector<std::string>& names = found->first == first ? modules.begin : modules.within;
    names.insert(names.end(), found->second.begin(), found->second.end());
  }
  return modules;
}

std::string Units::ModuleOf(size_t first, size_t last) const {
  std::optional<std::vector<std::string>> shared;
  for (size_t i = first; i < last; ++i) {
    if (repeated_[i]) continue;
    std::vector<std::string> path = absl::StrSplit(program_.graph.nodes[i].module, '.', absl::SkipEmpty());
    if (!shared) shared = path;
    const auto end = std::mismatch(shared->begin(), shared->end(), path.begin(), path.end()).first;
    shared->erase(end, shared->end());
  }
  return shared ? absl::StrJoin(*shared, ".") : "";
}

}  // namespace gpipe::worker
