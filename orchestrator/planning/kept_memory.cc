#include "orchestrator/planning/kept_memory.h"

#include <algorithm>
#include <utility>

namespace gpipe::orchestrator {

void KeptMemoryCounter::Add(const v1::LayerInfo& layer) {
  const int index = static_cast<int>(demand_.layer_bytes.size());
  demand_.layer_bytes.push_back(layer.activation_bytes_per_sample() * samples_);
  demand_.working_bytes.push_back(layer.working_bytes_per_sample() * samples_);
  for (const v1::ValueMemory& value : layer.value_memory()) {
    const bool makes = std::any_of(layer.makes().begin(), layer.makes().end(),
                                   [&](const v1::ModelValue& made) { return made.name() == value.name(); });
    if (makes) Place(value, index);
    const auto memory = memory_of_.find(value.name());
    if (!value.kept() || memory == memory_of_.end()) continue;
    int& first_keeper = memories_[memory->second].first_keeper;
    if (first_keeper < 0) first_keeper = index;
  }
}

// What lies within an input of the model, or within what was not measured, has no memory here.
void KeptMemoryCounter::Place(const v1::ValueMemory& value, int layer) {
  if (value.within().empty()) {
    memory_of_[value.name()] = memories_.size();
    memories_.push_back({.made_by = layer, .bytes = value.bytes_per_sample() * samples_});
  } else if (const auto outer = memory_of_.find(value.within()); outer != memory_of_.end()) {
    memory_of_[value.name()] = outer->second;
  }
}

pipeline::MemoryDemand KeptMemoryCounter::Take() {
  for (const Memory& memory : memories_) {
    if (memory.first_keeper >= 0) demand_.kept.push_back({memory.made_by, memory.first_keeper, memory.bytes});
  }
  return std::exchange(demand_, {});
}

}  // namespace gpipe::orchestrator
