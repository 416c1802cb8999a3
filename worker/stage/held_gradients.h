#ifndef GPIPE_WORKER_STAGE_HELD_GRADIENTS_H_
#define GPIPE_WORKER_STAGE_HELD_GRADIENTS_H_

#include <ATen/core/Tensor.h>

#include <map>

namespace gpipe::worker {

// The parameters of a worker whose gradients CUDA graphs write to, where these lie: nobody may let go of such a
// gradient, or the graphs write to what has become somebody else's. Stages may have parameters in common, and a model
// its evaluation's stages beside those of training, so they all look here. Used by the engine's thread only.
class HeldGradients {
 public:
  void Hold(const at::Tensor& parameter) { ++holders_[parameter.unsafeGetTensorImpl()]; }
  // REQUIRES: it is held.
  void LetGo(const at::Tensor& parameter) {
    const auto held = holders_.find(parameter.unsafeGetTensorImpl());
    if (--held->second == 0) holders_.erase(held);
  }
  bool Has(const at::Tensor& parameter) const { return holders_.contains(parameter.unsafeGetTensorImpl()); }

 private:
  std::map<const c10::TensorImpl*, int> holders_;  // How many stages hold it.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_HELD_GRADIENTS_H_
