#ifndef GPIPE_WORKER_STAGE_HELD_GRADIENTS_H_
#define GPIPE_WORKER_STAGE_HELD_GRADIENTS_H_

#include <ATen/core/Tensor.h>

#include <map>

namespace gpipe::worker {

// The gradients of a worker's parameters that CUDA graphs write to, where these lie. Stages may have parameters in
// common, and a model its evaluation's stages beside those of training, so they all look here. Used by the engine's
// thread only.
class HeldGradients {
 public:
  // From now on graphs write to the gradient that the parameter has.
  void Hold(const at::Tensor& parameter) {
    Held& held = held_[parameter.unsafeGetTensorImpl()];
    ++held.holders;
    if (!held.gradient.defined()) held.gradient = parameter.grad();
  }
  // REQUIRES: it is held.
  void LetGo(const at::Tensor& parameter) {
    const auto held = held_.find(parameter.unsafeGetTensorImpl());
    if (--held->second.holders == 0) held_.erase(held);
  }
  bool Has(const at::Tensor& parameter) const { return held_.contains(parameter.unsafeGetTensorImpl()); }

  // Before graphs add to it: a gradient that was let go of meanwhile is there again, as zero; another one that was put
  // in its place goes on in it.
  void Attach(const at::Tensor& parameter) const {
    const auto found = held_.find(parameter.unsafeGetTensorImpl());
    if (found == held_.end() || !found->second.gradient.defined()) return;
    const at::Tensor& gradient = found->second.gradient;
    at::Tensor& now = parameter.mutable_grad();
    if (!now.defined()) gradient.zero_();
    if (now.defined() && !now.is_same(gradient)) gradient.copy_(now);
    now = gradient;
  }

 private:
  struct Held {
    int holders = 0;  // Stages.
    at::Tensor gradient;
  };
  std::map<const c10::TensorImpl*, Held> held_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_HELD_GRADIENTS_H_
