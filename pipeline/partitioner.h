#ifndef GPIPE_PIPELINE_PARTITIONER_H_
#define GPIPE_PIPELINE_PARTITIONER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace gpipe::pipeline {

struct LayerCost {
  double seconds = 0;        // Forward, backward and recompute of one micro-batch.
  int64_t memory_bytes = 0;  // Parameters, optimizer state and saved activations.
  double send_seconds = 0;   // To send its output on, if the cut comes right after it.
};

// Cuts the layers into `stages` non-empty runs so that the slowest run, its send included, is as fast as possible, and
// no run needs more than memory_limit bytes (0: no limit). Exact: dynamic programming over contiguous cuts,
// O(stages * layers^2). Among equal optima the one whose other stages are most even. Returns layers per stage.
// INVALID_ARGUMENT: stages < 1 or more stages than layers. RESOURCE_EXHAUSTED: no cut fits the limit.
absl::StatusOr<std::vector<int64_t>> Partition(const std::vector<LayerCost>& layers, int stages,
                                               int64_t memory_limit = 0);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_PARTITIONER_H_
