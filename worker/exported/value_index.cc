#include "worker/exported/value_index.h"

#include "common/exported/value_names.h"

namespace gpipe::worker {

ValueIndex::ValueIndex(const exported::Program& program) {
  for (const exported::Input& input : program.inputs) Add(input.value);
  inputs_ = names_.size();
  const std::vector<exported::Node>& nodes = program.graph.nodes;
  for (size_t i = 0; i < nodes.size(); ++i) AddNode(nodes[i], i);
}

// Names are unique: the parser has checked it.
size_t ValueIndex::Add(const std::string& name) {
  const auto [added, is_new] = numbers_.emplace(name, names_.size());
  names_.push_back(&added->first);
  return added->second;
}

void ValueIndex::AddNode(const exported::Node& node, size_t position) {
  std::vector<size_t>& read = reads_.emplace_back();
  for (const std::string& name : exported::ValuesReadBy(node)) read.push_back(numbers_.at(name));
  std::vector<size_t>& made = makes_.emplace_back();
  for (const exported::Output& output : node.outputs) {
    for (const std::string& name : output.names) {
      if (name.empty()) continue;
      made.push_back(Add(name));
      makers_.push_back(position);
      is_number_.push_back(!output.is_tensor);
    }
  }
}

std::vector<size_t> ValueIndex::ValuesOf(const exported::Argument& argument) const {
  std::vector<std::string> names;
  exported::AppendValues(argument, names);
  std::vector<size_t> values;
  for (const std::string& name : names) values.push_back(numbers_.at(name));
  return values;
}

}  // namespace gpipe::worker
