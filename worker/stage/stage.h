#ifndef GPIPE_WORKER_STAGE_STAGE_H_
#define GPIPE_WORKER_STAGE_STAGE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/exported/build.h"

namespace gpipe::worker {

// Tensors by name: `input`, `target`, `output`, and the values of the plan's edges (`layer.1`, `skip.x0`).
using Values = std::map<std::string, at::Tensor>;

struct NamedTensor {
  std::string name;  // As in nn.Sequential.state_dict(): `0.weight`, `1.running_mean`.
  int layer = 0;
  at::Tensor tensor;  // The live parameter or buffer.
  bool trainable = false;
  bool owned = true;       // False for a copy of what an earlier worker has too, and saves.
  at::Tensor master = {};  // Mixed precision: what `tensor` is the rounding of, live; undefined: it is none.
};

// What one mini-batch means to a stage.
struct MiniBatch {
  uint64_t seed = 0;  // The job's.
  int64_t step = 0;
  std::vector<int64_t> micro_batch_sizes;
  bool training = false;
  // The whole mini-batch's, on the stage's device; last stage, with a loss that has one.
  at::Tensor target = {};
  // A float scalar on the device, the same tensor in every mini-batch: what the loss is multiplied by where it goes
  // back, and so all gradients are. Undefined: one.
  at::Tensor loss_scale = {};
  bool accumulates = false;  // Gradients that are there stay, and are added to.
};

enum class ForwardMode {
  kKeep,          // Training: keep what the backward needs.
  kCheckpointed,  // Training: keep the inputs only; Recompute comes before Backward.
  kInference,     // Keep nothing. Modules are in evaluation mode.
};

// A run of layers with their parameters, gradients and saved activations. Used by one thread, the engine's.
//
// Random numbers are a function of (job seed, step, micro-batch, layer), so that recomputing repeats them and the
// result does not depend on the cut. Batch norm counts a micro-batch once, not again when it is recomputed.
class Stage {
 public:
  // Builds the layers with their initial weights (Model.init_seed, one random stream per layer; the archive's, if the
  // model was exported).
  static absl::StatusOr<std::unique_ptr<Stage>> Create(const v1::JobSpec& spec, const v1::Plan& plan, int stage,
                                                       c10::Device device, const ExportedModel& model = {});
  virtual ~Stage() = default;

  // Parameters and buffers in the order of state_dict(). Gradients of what has a master are of the master's type.
  virtual const std::vector<NamedTensor>& state() const = 0;

  // A mini-batch begins: in training, gradients are zeroed. REQUIRES: the last one has ended.
  virtual absl::Status Begin(MiniBatch mini_batch) = 0;

  // `inputs` hold every value that crosses into this stage, and the model's inputs that it reads. The result holds
  // every value that leaves it; on the last stage also, with a loss, `loss`: a scalar, already weighted, so that the
  // micro-batches' losses add up to the mini-batch's; with a loss that counts also `count` (Loss::Count), and `loss` is
  // weighted by that, so that it adds up to the mini-batch's times the sum of counts; in kInference the model's outputs
  // by name; and in evaluation with cross_entropy `hits` (Loss::Hits). All detached. Tensors of another batch size than
  // the micro-batch's are refused.
  virtual absl::StatusOr<Values> Forward(int micro_batch, Values inputs, ForwardMode mode) = 0;

  // Forward again with gradients. REQUIRES: Forward(micro_batch, ..., kCheckpointed).
  virtual absl::Status Recompute(int micro_batch) = 0;

  // `gradients` hold one for each outgoing value whose edge requires one (none on the last stage: the loss is the
  // root). A value used by several stages gets the sum. The result holds the gradient of each incoming value whose edge
  // requires one. With a loss that counts, all micro-batches have been forward. Parameter gradients add up over
  // micro-batches. Frees what the micro-batch had saved.
  virtual absl::StatusOr<Values> Backward(int micro_batch, Values gradients) = 0;

  // The mini-batch ends: deferred batch norm commits. INTERNAL if anything is still saved.
  virtual absl::Status End() = 0;

  // Ends a mini-batch, if one has begun, whose rest is not wanted: lets go of what it has saved.
  virtual absl::Status Abandon() = 0;

  // Between the forward and the backward passes of a training mini-batch others may run: Suspend ends it as End does,
  // with what it has saved kept under `id`; Resume goes on with it, and Drop lets go of it. FAILED_PRECONDITION: there
  // is such an `id` already, or there is none.
  virtual absl::Status Suspend(int64_t id) = 0;
  virtual absl::Status Resume(int64_t id) = 0;
  virtual absl::Status Drop(int64_t id) = 0;

  // Whether Begin zeroes the gradients that are there, in place, or lets go of them; of a parameter that another stage
  // keeps the gradient of, none does. At first it lets go of them: then a parameter that gets none in a mini-batch is
  // not updated.
  virtual void KeepGradients(bool keep) = 0;

  // Gradients that are kept are where they were kept, whatever has been put in their place since: to be called before
  // work that was recorded goes back.
  virtual void AttachGradients() = 0;

  // Highest bytes saved between Forward and Backward in this mini-batch, as the device's allocator counted them.
  virtual int64_t peak_saved_bytes() const = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_STAGE_H_
