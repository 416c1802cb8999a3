#ifndef GPIPE_WORKER_ENGINE_ROUND_RECORD_H_
#define GPIPE_WORKER_ENGINE_ROUND_RECORD_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/action.h"
#include "worker/engine/action_timer.h"
#include "worker/engine/round_plan.h"
#include "worker/engine/transfer_queue.h"

namespace gpipe::worker {

// What one round made that somebody wants to know. Filled while it runs; on CUDA its numbers arrive on the host later
// than its last action was queued, so it outlives the round by a little.
struct RoundRecord {
  RoundPlan plan;
  std::unique_ptr<ActionTimer> timer;
  std::vector<pipeline::Action> timed;    // By the timer's number.
  size_t reported = 0;                    // How many of `timed` have been told.
  std::vector<int64_t> peak_saved_bytes;  // By hosted stage.

  // The worker of the last stage. On the device, one per micro-batch.
  std::vector<at::Tensor> losses;                          // Scalars; weighed by `counts`, if there are any.
  std::vector<at::Tensor> counts;                          // What Loss::Count gives; none where nothing is counted.
  std::vector<at::Tensor> hits;                            // What Loss::Hits gives.
  std::map<std::string, std::vector<at::Tensor>> outputs;  // Inference: by name.
  double lr = 0;

  int64_t data_wait_nanos = 0;  // How long the engine waited for its mini-batch to be read.

  std::vector<TransferQueue::Traffic> traffic;  // By worker.
  // On CUDA, where the device waits and not the engine: what it waited for before the action of this number, if it did.
  struct DeviceWait {
    size_t action = 0;
    int worker = 0;
  };
  std::vector<DeviceWait> device_waits;

  std::optional<v1::ArtifactRef> result;  // What was made for a client, where that is.

  at::Tensor grad_squares;  // Training: of each layer of the model, right for this worker's layers.
  at::Tensor scaling;       // In fp16: the loss scale after the step, and whether the step was left out, float64.

  // Copies on the host, there when the timer is complete: losses, counts, the sum of hits if there are any,
  // grad_squares, scaling; and the rows of each output.
  at::Tensor scalars;
  std::map<std::string, at::Tensor> rows;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ROUND_RECORD_H_
