#include "pipeline/run_memory.h"

#include <algorithm>

namespace gpipe::pipeline {

RunMemory::RunMemory(const MemoryDemand& demand) : demand_(demand), bytes_(demand.layer_bytes.size() + 1) {}

// From the shortest run to the longest one: each layer adds its own bytes, and what it makes if the run keeps that.
void RunMemory::MoveTo(size_t end) {
  std::fill(bytes_.begin(), bytes_.end(), 0);
  for (const KeptMemory& memory : demand_.kept) {
    if (memory.first_keeper < static_cast<int>(end)) bytes_[memory.made_by] += memory.bytes;
  }
  int64_t held = 0, working = 0;
  for (size_t begin = end; begin-- > 0;) {
    held += bytes_[begin] + demand_.layer_bytes[begin];
    if (!demand_.working_bytes.empty()) working = std::max(working, demand_.working_bytes[begin]);
    bytes_[begin] = held + working;
  }
}

}  // namespace gpipe::pipeline
