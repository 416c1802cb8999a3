#ifndef GPIPE_WORKER_MODEL_LAYER_RUN_H_
#define GPIPE_WORKER_MODEL_LAYER_RUN_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "worker/model/model_layers.h"

namespace gpipe::worker {

// Memory of one micro-batch in a layer, as the device's allocator counts it. A stage keeps of a forward pass what its
// graph of gradients holds, and lets go of every value that the graph does not hold as soon as no layer reads it.
struct LayerMemory {
  // Of a value that the layer reads or makes.
  struct Value {
    // The first value, of those read and then those made, in whose memory this one lies; -1: in its own.
    int within = -1;
    int64_t bytes = 0;  // Of its own memory.
    bool kept = false;  // By the layer's graph.
  };

  int64_t kept_bytes = 0;     // For the backward pass, without memory of values.
  int64_t working_bytes = 0;  // The most that was there at a time beside what is kept.
  std::vector<Value> read, made;
};

// A forward and a backward pass of a layer, alone.
struct LayerRun {
  absl::Duration forward, backward;
  LayerMemory memory;
};

// What the layer's parameters, and its inputs, have for gradients is added to; others of inputs go nowhere. There is a
// backward only if the layer is trained, or an input requires a gradient; none where gradients are off. Exceptions are
// the layer's.
LayerRun RunLayer(const ModelLayer& layer, const std::vector<at::Tensor>& inputs, c10::Device device);

// Gradients that are zero for all that is trained, so that a run has to make none.
void PrepareGradients(const ModelLayer& layer);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_LAYER_RUN_H_
