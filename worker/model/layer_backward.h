#ifndef GPIPE_WORKER_MODEL_LAYER_BACKWARD_H_
#define GPIPE_WORKER_MODEL_LAYER_BACKWARD_H_

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>

#include <vector>

#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

// For measuring layers one at a time, as what they are within a stage: gradients come from the next layer, and go to
// the one before. At a leaf, where autograd would leave them, it copies those that a layer only passes on.

// The values, for a layer to read: the gradients of those that require one go nowhere, but for those of values that
// have a gradient, which is added to, as to what later layers have made of it. What a layer writes into the values is
// written into `values`.
std::vector<at::Tensor> WithGradientsEnded(const std::vector<at::Tensor>& values);

// Where the backward pass of a layer begins. It keeps no output's memory.
class LayerBackward {
 public:
  explicit LayerBackward(const std::vector<at::Tensor>& outputs);

  // Ones, for each output that has a gradient: each lies as the output does. Any number of passes may begin with them.
  std::vector<at::Tensor> MakeGradients() const;
  // Adds to what parameters have for gradients, and lets go of the graph. REQUIRES: called once. Exceptions are the
  // layer's.
  void Run(const std::vector<at::Tensor>& gradients) const;

 private:
  struct Root {
    torch::autograd::Edge edge;
    std::vector<int64_t> sizes;
    DimensionOrder order;
    at::TensorOptions options;
  };

  std::vector<Root> roots_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_LAYER_BACKWARD_H_
