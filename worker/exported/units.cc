#include "worker/exported/units.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/exported/value_names.h"
#include "common/status_macros.h"
#include "worker/exported/fusions.h"
#include "worker/exported/operator_call.h"

namespace gpipe::worker {
namespace {

using exported::InputKind;
using exported::Node;

// No random numbers, nothing written: the same wherever it is done.
bool IsPure(const Node& node) {
  if (MayWrite(node)) return false;
  const auto handle = FindOperator(node);
  return !handle->has_value() || !(*handle)->hasTag(at::Tag::nondeterministic_seeded);
}

std::vector<Fusion> FusionsOf(const exported::Program& program) {
  std::vector<const Node*> nodes;
  for (const Node& node : program.graph.nodes) nodes.push_back(&node);
  std::vector<std::string> kept;
  for (const exported::UserOutput& output : program.user_outputs) exported::AppendValues(output.value, kept);
  return FindFusions(nodes, program.graph.values, {kept.begin(), kept.end()});
}

// Positions at which there is no cut, as ranges that are added up at the end.
class Forbidden {
 public:
  explicit Forbidden(size_t nodes) : changes_(nodes + 2) {}

  // Between `first` and `last`, which stay together.
  void Between(size_t first, size_t last) {
    if (first >= last) return;
    ++changes_[first + 1];
    --changes_[std::min(last, changes_.size() - 2) + 1];
  }

  std::vector<bool> AtEach() const {
    std::vector<bool> forbidden;
    int64_t ranges = 0;
    for (const int64_t change : changes_) forbidden.push_back((ranges += change) > 0);
    return forbidden;
  }

 private:
  std::vector<int64_t> changes_;
};

}  // namespace

absl::StatusOr<Units> Units::Find(const Archive& archive) {
  GPIPE_ASSIGN_OR_RETURN(Aliasing aliasing, FindAliasing(archive));
  Units units(archive.program(), std::move(aliasing));
  units.FindRepeated();
  units.FindUses();
  units.FindModules();
  units.FindCuts();
  return units;
}

void Units::FindRepeated() {
  std::vector<bool> common(index_.size());
  for (size_t i = 0; i < index_.inputs(); ++i) {
    common[i] = program_.inputs[i].kind != InputKind::kParameter && !IsWritten(i);
  }
  for (size_t i = 0; i < program_.graph.nodes.size(); ++i) {
    const std::vector<size_t>&read = index_.ReadBy(i), &made = index_.MadeBy(i);
    const bool repeated = std::all_of(read.begin(), read.end(), [&](size_t value) { return common[value]; }) &&
                          IsPure(program_.graph.nodes[i]) &&
                          std::none_of(made.begin(), made.end(), [&](size_t value) { return IsWritten(value); });
    repeated_.push_back(repeated);
    for (const size_t value : made) common[value] = repeated;
  }
}

void Units::FindUses() {
  last_use_.resize(index_.size());
  for (size_t i = 0; i < program_.graph.nodes.size(); ++i) {
    if (repeated_[i]) continue;
    for (const size_t value : index_.ReadBy(i)) last_use_[value] = i;
  }
  // A repeated node is done where it is needed: what it reads is repeated too, or there already.
  for (const exported::UserOutput& output : program_.user_outputs) {
    for (const size_t value : index_.ValuesOf(output.value)) last_use_[value] = program_.graph.nodes.size();
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

void Units::FindCuts() {
  const size_t nodes = program_.graph.nodes.size();
  Forbidden forbidden(nodes);
  for (const auto& [first, last] : aliasing_.unbroken) forbidden.Between(first, last);
  for (size_t value = index_.inputs(); value < index_.size(); ++value) {
    if (index_.IsNumber(value) && !IsRepeated(value)) forbidden.Between(index_.MakerOf(value), last_use_[value]);
  }
  for (const Fusion& fusion : FusionsOf(program_)) forbidden.Between(fusion.nodes.front(), fusion.nodes.back());
  const std::vector<bool> forbidden_at = forbidden.AtEach();
  // Before a node that belongs to nobody a cut is the same as behind it.
  bool owned = false;
  for (size_t i = 0; i < nodes; ++i) {
    if (repeated_[i]) continue;
    if (owned && !forbidden_at[i]) cuts_.push_back(i);
    owned = true;
  }
}

std::vector<size_t> Units::CutsWhere(absl::FunctionRef<bool(const std::string&)> can_cross) const {
  Forbidden forbidden(program_.graph.nodes.size());
  for (size_t value = index_.inputs(); value < index_.size(); ++value) {
    if (IsRepeated(value) || last_use_[value] <= index_.MakerOf(value) || can_cross(index_.NameOf(value))) continue;
    forbidden.Between(index_.MakerOf(value), last_use_[value]);
  }
  const std::vector<bool> forbidden_at = forbidden.AtEach();
  std::vector<size_t> cuts;
  std::ranges::copy_if(cuts_, std::back_inserter(cuts), [&](size_t cut) { return !forbidden_at[cut]; });
  return cuts;
}

void Units::AddRepeated(size_t value, std::set<size_t>& nodes) const {
  if (!IsRepeated(value) || !nodes.insert(index_.MakerOf(value)).second) return;
  for (const size_t read : index_.ReadBy(index_.MakerOf(value))) AddRepeated(read, nodes);
}

std::set<size_t> Units::NodesOf(size_t first, size_t last, const std::set<size_t>& outputs) const {
  std::set<size_t> nodes;
  for (size_t i = first; i < last; ++i) {
    if (repeated_[i]) continue;
    nodes.insert(nodes.end(), i);
    for (const size_t value : index_.ReadBy(i)) AddRepeated(value, nodes);
  }
  for (const size_t value : outputs) AddRepeated(value, nodes);
  return nodes;
}

std::set<size_t> Units::OutputsOf(size_t last, const std::vector<std::string>& outputs) const {
  std::set<size_t> values;
  if (last < program_.graph.nodes.size()) return values;
  for (const std::string& name : outputs) values.insert(index_.NumberOf(name));
  return values;
}

GraphLayer::Part Units::PartOf(size_t first, size_t last, const std::vector<std::string>& outputs) const {
  std::set<size_t> read = OutputsOf(last, outputs);  // Also those that it passes on.
  const std::set<size_t> nodes = NodesOf(first, last, read);
  GraphLayer::Part part;
  part.nodes.assign(nodes.begin(), nodes.end());
  for (const size_t node : nodes) {
    read.insert(index_.ReadBy(node).begin(), index_.ReadBy(node).end());
    for (const size_t value : index_.MadeBy(node)) {
      AddWritten(value, part);
      if (!repeated_[node] && last_use_[value] >= last) part.leaving.push_back(index_.NameOf(value));
    }
  }
  for (const size_t value : read) {
    AddWritten(value, part);
    const bool is_user_input = value < index_.inputs() && program_.inputs[value].kind == InputKind::kUserInput;
    const bool crosses = value >= index_.inputs() && index_.MakerOf(value) < first && !IsRepeated(value);
    if (is_user_input || crosses) part.entering.push_back(index_.NameOf(value));
  }
  if (last == program_.graph.nodes.size()) part.leaving = outputs;
  return part;
}

void Units::AddWritten(size_t value, GraphLayer::Part& part) const {
  const std::string& name = index_.NameOf(value);
  if (aliasing_.written.contains(name)) part.written.insert(name);
  if (aliasing_.written_state.contains(name)) part.written_state.insert(name);
}

std::vector<const exported::Input*> Units::InputsOf(const GraphLayer::Part& part) const {
  std::set<size_t> values;
  for (const std::string& name : part.leaving) values.insert(index_.NumberOf(name));
  for (const size_t node : part.nodes) values.insert(index_.ReadBy(node).begin(), index_.ReadBy(node).end());
  std::vector<const exported::Input*> inputs;
  for (const size_t value : values) {
    if (value >= index_.inputs()) break;
    if (program_.inputs[value].kind != InputKind::kUserInput) inputs.push_back(&program_.inputs[value]);
  }
  return inputs;
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
