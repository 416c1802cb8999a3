#ifndef GPIPE_ORCHESTRATOR_PLANNING_KEPT_MEMORY_H_
#define GPIPE_ORCHESTRATOR_PLANNING_KEPT_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gpipe/v1/plan.pb.h"
#include "pipeline/run_memory.h"

namespace gpipe::orchestrator {

// What one micro-batch of so many samples needs, from what was measured of a model's layers, added one after the other.
// Used by one thread.
class KeptMemoryCounter {
 public:
  explicit KeptMemoryCounter(int64_t samples) : samples_(samples) {}

  void Add(const v1::LayerInfo& layer);

  // Without the layers' parameters and optimizer state. Memory that several values lie in, and several layers keep, is
  // there once; memory of the model's inputs is not among it.
  pipeline::MemoryDemand Take();

 private:
  struct Memory {
    int made_by = 0;
    int first_keeper = -1;  // Nobody.
    int64_t bytes = 0;
  };

  void Place(const v1::ValueMemory& value, int layer);

  const int64_t samples_;
  pipeline::MemoryDemand demand_;
  std::vector<Memory> memories_;
  std::map<std::string, size_t> memory_of_;  // By value.
};

// That of layers that follow one another, which may be in any container.
template <typename Layers>
pipeline::MemoryDemand KeptMemoryOf(const Layers& layers, int64_t samples) {
  KeptMemoryCounter counter(samples);
  for (const v1::LayerInfo& layer : layers) counter.Add(layer);
  return counter.Take();
}

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_KEPT_MEMORY_H_
