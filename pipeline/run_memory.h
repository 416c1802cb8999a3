#ifndef GPIPE_PIPELINE_RUN_MEMORY_H_
#define GPIPE_PIPELINE_RUN_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gpipe::pipeline {

// Memory that one layer makes, and that it or later ones keep for the backward pass. However many of a stage's layers
// keep it, it is there once. A stage that has it from another one holds that as an input, whoever keeps it.
struct KeptMemory {
  int made_by = 0;
  int first_keeper = 0;  // Not before made_by.
  int64_t bytes = 0;     // Of all micro-batches that are kept at a time.
};

// What layers need.
struct MemoryDemand {
  // Parameters, optimizer state, and what only the layer itself keeps: of each layer.
  std::vector<int64_t> layer_bytes;
  std::vector<KeptMemory> kept;
  // While a layer is computed, beside all that is kept: of each layer. Empty: nothing.
  std::vector<int64_t> working_bytes;
};

// Bytes that a run of layers [begin, end) needs, without its inputs, for every begin with the same end. A longer run
// never needs less.
class RunMemory {
 public:
  // Keeps a reference to the demand.
  explicit RunMemory(const MemoryDemand& demand);

  // Looks at the runs that end before layer `end`, in time linear in the layers and the kept memory.
  void MoveTo(size_t end);

  int64_t Bytes(size_t begin) const { return bytes_[begin]; }

 private:
  const MemoryDemand& demand_;
  std::vector<int64_t> bytes_;  // By begin.
};

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_RUN_MEMORY_H_
