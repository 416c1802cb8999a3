#ifndef GPIPE_WORKER_MODEL_LAYER_H_
#define GPIPE_WORKER_MODEL_LAYER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace gpipe::worker {

// Which forward this is. Everything random in a layer is a function of it.
struct LayerContext {
  bool training = false;
  bool recomputing = false;  // A micro-batch's second forward: it has no effect but its result.
  uint64_t seed = 0;         // The job's.
  int64_t step = 0;
  int micro_batch = 0;
  bool measured = false;  // Only for how long it takes: random numbers are any.
};

// A parameter or buffer under the name it has within its layer.
struct LayerTensor {
  std::string name;
  at::Tensor tensor;
  bool parameter = true;
  at::Tensor master = {};  // What it was before CastParameters has rounded it; else undefined.
};

// One cuttable unit of a model: a function of values, with parameters and buffers. Used by one thread.
// Errors are exceptions (c10::ValueError for values that do not fit); who calls knows the layer's name and adds it.
class Layer {
 public:
  Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;
  virtual ~Layer() = default;

  // Takes the values that it reads and returns those that it makes, in the order of ModelLayer::inputs and outputs.
  // On meta tensors only shapes and types are computed. Inputs are never written to.
  virtual std::vector<at::Tensor> Forward(const LayerContext& context, std::vector<at::Tensor> inputs) = 0;

  // All micro-batches of a training mini-batch have been forward.
  virtual void EndMiniBatch() {}

  // None of those of that step will be computed again. Between its last forward and this, mini-batches of other steps
  // may come and go.
  virtual void ForgetMiniBatch(int64_t /*step*/) {}

  // In the order of state_dict().
  const std::vector<LayerTensor>& tensors() const { return tensors_; }

  // Mixed precision: from now on the parameters are of this type, and so is what Forward makes of values of it. A layer
  // whose kernels take parameters of a wider type than the values keeps its own. REQUIRES: nothing has been computed.
  void CastParameters(c10::ScalarType type);

 protected:
  virtual bool keeps_type() const { return false; }
  at::Tensor AddParameter(std::string name, at::Tensor tensor) { return Add(std::move(name), std::move(tensor), true); }
  at::Tensor AddBuffer(std::string name, at::Tensor tensor) { return Add(std::move(name), std::move(tensor), false); }

 private:
  at::Tensor Add(std::string name, at::Tensor tensor, bool parameter) {
    tensors_.push_back({std::move(name), tensor, parameter});
    return tensor;
  }

  std::vector<LayerTensor> tensors_;
};

// A layer with one value in and one out.
class UnaryLayer : public Layer {
 public:
  std::vector<at::Tensor> Forward(const LayerContext& context, std::vector<at::Tensor> inputs) final {
    return {Apply(context, inputs.front())};
  }

 protected:
  virtual at::Tensor Apply(const LayerContext& context, const at::Tensor& x) = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_LAYER_H_
