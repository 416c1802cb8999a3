#ifndef GPIPE_WORKER_MODEL_LOSS_H_
#define GPIPE_WORKER_MODEL_LOSS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::worker {

// PyTorch's loss over a mini-batch, as a sum over its micro-batches: each contributes its sum over the
// mini-batch's count, so that uneven micro-batches weigh what they are worth. Errors are exceptions.
// The host never waits for the device. Used by one thread.
class Loss {
 public:
  // REQUIRES: spec::WithDefaults. Throws c10::ValueError for a loss without a kind.
  static std::unique_ptr<Loss> Create(const v1::Loss& spec);
  virtual ~Loss() = default;

  // Whether there is a target: the data's, or of model_output the input whose elements count. Without one it is
  // undefined everywhere here.
  virtual bool has_target() const { return true; }

  // `target` is the whole mini-batch's, of so many samples.
  virtual void Begin(const at::Tensor& target, int64_t samples) = 0;

  // A micro-batch's part of the mini-batch's mean, a scalar with gradients; with Count its own loss, not weighed yet.
  virtual at::Tensor Share(const at::Tensor& output, const at::Tensor& target, int64_t samples) const = 0;

  // Of how much a micro-batch's loss is the mean, a double on the device, where Share cannot know what the whole
  // mini-batch's is the mean of; then the mini-batch's loss is the mean of these losses, weighed by these. Else
  // undefined.
  virtual at::Tensor Count(const at::Tensor& target, const at::Tensor& counted) const { return {}; }

  // Two int64: how many targets the output's largest value hits (of probabilities, the likeliest class), and of how
  // many; undefined where that means nothing. The second is also what this loss divides by.
  virtual at::Tensor Hits(const at::Tensor& output, const at::Tensor& target) const { return {}; }
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_LOSS_H_
