#ifndef GPIPE_WORKER_STAGE_OPTIMIZER_H_
#define GPIPE_WORKER_STAGE_OPTIMIZER_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "worker/stage/mixed_state.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Updates the trainable parameters of all stages of one worker from their gradients, by torch.optim's fused kernels
// (update_rule.h). Where a parameter has a master, that is updated, and rounded to the parameter. Used by the engine's
// thread only; on CUDA nothing here waits for the device.
class Optimizer {
 public:
  // `parameters` are live tensors, held on to, all on `device`; there may be none. REQUIRES: spec::WithDefaults.
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(const v1::Optimizer& spec,
                                                           std::vector<NamedTensor> parameters,
                                                           c10::Device device = c10::kCPU,
                                                           const MixedState::Options& mixed = {});
  virtual ~Optimizer() = default;

  // Scalar tensors on the device, float64: the sum of squares of each layer's gradients, at the layer's index of a
  // vector as long as the model has layers, zero for layers of other workers. Summed over workers it is exact whatever
  // the cut, and so is the norm taken from it in layer order. A parameter of several workers counts on the first.
  virtual at::Tensor SquaredGradientNorms(int64_t layers) const = 0;

  // Scales all gradients by max_norm / (norm + 1e-6) when that is below 1, as torch.nn.utils.clip_grad_norm_.
  // `norm` is a scalar tensor on the device.
  virtual absl::Status ClipGradients(const at::Tensor& norm, double max_norm) = 0;

  // One update. A parameter without a gradient is left alone. With a loss scale gradients are divided by that, and
  // nothing is changed but the scale if they have overflowed: its Unscale has looked at them.
  virtual absl::Status Step(double lr) = 0;

  // State by parameter name and slot (`0.weight/exp_avg`, `0.weight/momentum_buffer`, `0.weight/step`): live tensors,
  // which Step changes, but `step`, which is a copy; empty before the first step, but for what mixed precision has
  // (mixed_state.h). LoadState takes from `state` what belongs to its own parameters; one that is not in it at all has
  // never had a gradient, and is without state then.
  virtual std::vector<NamedTensor> State() const = 0;
  virtual absl::Status LoadState(const Values& state) = 0;
  // The names LoadState looks for.
  virtual std::vector<std::string> StateNames() const = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_OPTIMIZER_H_
