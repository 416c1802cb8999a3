#ifndef GPIPE_WORKER_STAGE_LOSS_SCALE_H_
#define GPIPE_WORKER_STAGE_LOSS_SCALE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace gpipe::worker {

// What the loss of fp16 is multiplied by before it goes back, so that small gradients are not rounded to zero. It
// halves when a gradient has overflowed, and that step is left out; it doubles after 2000 steps without:
// torch.amp.GradScaler. Each worker has one, and all decide by the same sum over all of them, so that they stay equal.
//
// All of it is on the device, and nothing here waits for that. Errors are exceptions. Used by the engine's thread only.
class LossScale {
 public:
  static constexpr double kFirst = 65536;
  // The smallest number of fp16, and so the smallest scale that leaves anything of a gradient.
  static constexpr double kLeast = 1.0 / (1 << 24);

  explicit LossScale(c10::Device device);

  // Live scalars, the same tensors for as long as this: the scale; of this step, 1 when a gradient has overflowed, else
  // 0 (both float32); and how many steps since the scale last changed (int32). A checkpoint's are copied to them.
  const at::Tensor& scale() const { return scale_; }
  const at::Tensor& overflow() const { return overflow_; }
  const at::Tensor& good_steps() const { return good_steps_; }

  // Finds out whether the gradients overflowed. `squares` are sums of their squares over all workers, float64; the
  // result is what they would be without a scale.
  at::Tensor Unscale(const at::Tensor& squares);

  // The step is done, or left out.
  void Update();

 private:
  at::Tensor scale_, overflow_, good_steps_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_LOSS_SCALE_H_
