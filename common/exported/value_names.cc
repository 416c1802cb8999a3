#include "common/exported/value_names.h"

#include <algorithm>

namespace gpipe::exported {

const Argument* FindArgument(const Node& node, std::string_view name) {
  const auto found = std::ranges::find(node.inputs, name, &NamedArgument::name);
  return found == node.inputs.end() ? nullptr : &found->argument;
}

void AppendValues(const Argument& argument, std::vector<std::string>& names) {
  if (const auto* value = std::get_if<ValueName>(&argument.value)) names.push_back(value->name);
  if (const auto* list = std::get_if<exported::ArgumentList>(&argument.value)) {
    for (const Argument& element : *list) AppendValues(element, names);
  }
}

std::vector<std::string> ValuesReadBy(const Node& node) {
  std::vector<std::string> names;
  for (const NamedArgument& input : node.inputs) AppendValues(input.argument, names);
  return names;
}

std::vector<std::string> ValuesMadeBy(const Node& node) {
  std::vector<std::string> names;
  for (const Output& output : node.outputs) {
    for (const std::string& name : output.names) {
      if (!name.empty()) names.push_back(name);
    }
  }
  return names;
}

}  // namespace gpipe::exported
