#ifndef GPIPE_PIPELINE_SIMULATOR_H_
#define GPIPE_PIPELINE_SIMULATOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/schedule.h"

namespace gpipe::pipeline {

// Durations of one micro-batch on each stage, in seconds.
struct StageCost {
  double forward = 1;
  double backward = 2;
  double recompute = 1;
  double optimizer = 0;
  int64_t saved_bytes = 0;  // Kept per micro-batch from F, or R if it is checkpointed, to B.
  int64_t input_bytes = 0;  // Kept per micro-batch from F to B.
};

// How long a message takes.
struct EdgeSeconds {
  double value = 0;
  double gradient = 0;
};

struct SimulatedAction {
  Action action;
  int worker = 0;
  double start = 0;
  double end = 0;
};

struct SimulatedTimeline {
  std::vector<SimulatedAction> actions;  // By start time.
  double seconds = 0;
  double bubble_share = 0;          // Workers' time without compute.
  std::vector<int64_t> peak_bytes;  // By stage.
};

// Runs a lowered schedule with the given durations; what is sent over an edge arrives `edge_seconds[edge]` later.
// FAILED_PRECONDITION with each worker's next action when the rows wait for each other.
absl::StatusOr<SimulatedTimeline> Simulate(const Schedule& schedule, const std::vector<Edge>& edges,
                                           const std::vector<StageCost>& stages,
                                           const std::vector<EdgeSeconds>& edge_seconds);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_SIMULATOR_H_
