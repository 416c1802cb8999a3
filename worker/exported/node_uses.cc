#include "worker/exported/node_uses.h"

#include "common/exported/value_names.h"
#include "worker/exported/operator_call.h"

namespace gpipe::worker {

using exported::Argument;
using exported::FindArgument;
using exported::Node;

NodeUses::NodeUses(const std::vector<const Node*>& nodes, const std::map<std::string, exported::TensorMeta>& values,
                   const std::set<std::string>& kept)
    : nodes_(nodes), values_(values) {
  for (const std::string& name : kept) ++uses_[name];
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string& name : exported::ValuesReadBy(*nodes[i])) ++uses_[name];
    for (const std::string& name : exported::ValuesMadeBy(*nodes[i])) makers_[name] = i;
  }
}

const exported::TensorMeta* NodeUses::TensorOf(const std::string& value) const {
  const auto found = values_.find(value);
  return found == values_.end() ? nullptr : &found->second;
}

std::optional<size_t> NodeUses::OnlyMakerOf(const std::string& value, std::string_view target) const {
  const auto maker = makers_.find(value);
  if (maker == makers_.end() || nodes_[maker->second]->target != target || uses_.at(value) != 1) return std::nullopt;
  return maker->second;
}

size_t NodeUses::UsesOf(size_t position) const {
  size_t uses = 0;
  for (const std::string& name : exported::ValuesMadeBy(*nodes_[position])) {
    if (const auto found = uses_.find(name); found != uses_.end()) uses += found->second;
  }
  return uses;
}

bool NodeUses::MayWriteBetween(size_t first, size_t last) const {
  for (size_t i = first; i < last; ++i) {
    if (MayWrite(*nodes_[i])) return true;
  }
  return false;
}

NodeUses::Pairs NodeUses::OperandsOf(size_t position) const {
  const std::string *one = ValueIn(FindArgument(*nodes_[position], "self")),
                    *other = ValueIn(FindArgument(*nodes_[position], "other"));
  if (one == nullptr || other == nullptr) return {};
  return {{one, other}, {other, one}};
}

const std::string* OnlyResultOf(const Node& node) {
  const bool has_one = node.outputs.size() == 1 && node.outputs.front().names.size() == 1;
  return has_one && !node.outputs.front().names.front().empty() ? &node.outputs.front().names.front() : nullptr;
}

const std::string* ValueIn(const Argument* argument) {
  const auto* value = argument == nullptr ? nullptr : std::get_if<exported::ValueName>(&argument->value);
  return value == nullptr ? nullptr : &value->name;
}

std::optional<int64_t> IntegerOf(const Node& node, std::string_view name, int64_t otherwise) {
  const Argument* argument = FindArgument(node, name);
  if (argument == nullptr || std::holds_alternative<std::monostate>(argument->value)) return otherwise;
  const auto* number = std::get_if<int64_t>(&argument->value);
  return number == nullptr ? std::nullopt : std::optional(*number);
}

}  // namespace gpipe::worker
