#ifndef GPIPE_PIPELINE_PARTITIONER_H_
#define GPIPE_PIPELINE_PARTITIONER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/link.h"
#include "pipeline/run_memory.h"

namespace gpipe::pipeline {

// A value that one layer makes and later ones read.
struct LayerValue {
  static constexpr int kModelInput = -1;

  int made_by = kModelInput;  // No stage sends an input of the model.
  std::vector<int> read_by;   // Ascending, all after made_by.
  int64_t bytes = 0;          // Of one micro-batch.
  bool has_gradient = false;  // A message of the same size comes back.
};

struct PartitionRequest {
  // Of one micro-batch: forward, backward and recompute of each layer, by the stage it would be on. One entry per
  // stage.
  std::vector<std::vector<double>> seconds;
  MemoryDemand memory;
  // What crosses between stages. A stage also holds what it reads of earlier ones, for `inputs_held` micro-batches.
  std::vector<LayerValue> values;
  int64_t inputs_held = 0;
  // Between each stage and the next one; empty: sending takes no time.
  std::vector<Link> links;
  // Bytes that each stage may take, 0 is any number; empty: all may.
  std::vector<int64_t> memory_limits;
};

// Cuts the layers into one non-empty run per stage so that the slowest run is as fast as possible, and none is over its
// memory limit. A run's time is that of its layers on its stage, and of its sends: the values that later layers read,
// over the link to the next stage, as one message; the gradients of what it reads, over the link to the one before.
// Exact: dynamic programming over contiguous cuts, O(stages * layers^2) at worst. Among equal optima the one whose
// other stages are most even. Returns layers per stage. INVALID_ARGUMENT: no stages, more stages than layers, or lists
// that do not fit each other. RESOURCE_EXHAUSTED: no cut fits the limits.
absl::StatusOr<std::vector<int64_t>> Partition(const PartitionRequest& request);

// Bytes that each run of a cut takes, as Partition counts them against the limits; links and seconds do not matter.
// REQUIRES: the request is one that Partition takes, and `balance` adds up to its layers.
std::vector<int64_t> RunBytes(const PartitionRequest& request, const std::vector<int64_t>& balance);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_PARTITIONER_H_
