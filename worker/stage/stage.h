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
#include "pipeline/action.h"
#include "worker/exported/build.h"
#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

// Tensors by name.
using Values = std::map<std::string, at::Tensor>;

// A value that enters or leaves a stage.
struct CrossingValue {
  std::string name;
  bool requires_grad = false;  // A gradient goes the other way.
  bool begins_with_batch = true;
  DimensionOrder order = {};                          // In which it lies in memory, and its gradient.
  c10::ScalarType cast = c10::ScalarType::Undefined;  // What is given is cast to this, if it is floating.
};

// A value that is an output of the model, and the name by which the job knows it.
struct OutputValue {
  std::string name;
  std::string value;
};

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

// What a pass of a micro-batch makes, all of it detached. Only the last stage makes more than `values`.
struct PassResults {
  // Forward: in the order of outgoing(). Backward: the gradients, in the order of incoming(); undefined where none is
  // required.
  std::vector<at::Tensor> values = {};
  // With a loss: a scalar, already weighted, so that those of the micro-batches add up to the mini-batch's.
  at::Tensor loss = {};
  // With a loss that counts: as Loss::Count. Then `loss` is weighted by it, and adds up to the mini-batch's times the
  // sum of counts.
  at::Tensor count = {};
  at::Tensor hits = {};                  // In evaluation with cross_entropy: as Loss::Hits.
  std::vector<at::Tensor> outputs = {};  // kInference: the model's, in the order of outputs().
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

  // What enters: the inputs of the model that the stage reads, then the values of the plan's edges that end at it, both
  // in the plan's order. What leaves: each value once, in the order of the first edge that begins with it; with client
  // data, on the last stage, the model's outputs behind them. The model's outputs are the last stage's.
  virtual const std::vector<CrossingValue>& incoming() const = 0;
  virtual const std::vector<CrossingValue>& outgoing() const = 0;
  virtual const std::vector<OutputValue>& outputs() const = 0;

  // Parameters and buffers in the order of state_dict(). Gradients of what has a master are of the master's type.
  virtual const std::vector<NamedTensor>& state() const = 0;

  // A mini-batch begins: in training, gradients are zeroed. REQUIRES: the last one has ended.
  virtual absl::Status Begin(MiniBatch mini_batch) = 0;

  // `inputs` are in the order of incoming(). INVALID_ARGUMENT: one is not there, or has not the micro-batch's samples.
  virtual absl::StatusOr<PassResults> Forward(int micro_batch, std::vector<at::Tensor> inputs, ForwardMode mode) = 0;

  // Forward again with gradients. REQUIRES: Forward(micro_batch, ..., kCheckpointed).
  virtual absl::Status Recompute(int micro_batch) = 0;

  // `gradients` are in the order of outgoing(), undefined where the value requires none (there is none on the last
  // stage: the loss is the root). A value used by several stages gets the sum. The result is in the order of
  // incoming(). With a loss that counts, all micro-batches have been forward. Parameter gradients add up over
  // micro-batches. Frees what the micro-batch had saved.
  virtual absl::StatusOr<std::vector<at::Tensor>> Backward(int micro_batch, std::vector<at::Tensor> gradients) = 0;

  // Where the next such pass of the micro-batch will read what it is given, in that order, so that what is put there is
  // not copied; empty where it reads what it gets. For work that is queued on the current stream from now on, within
  // the mini-batch.
  virtual at::TensorList Room(pipeline::Direction /*pass*/, int /*micro_batch*/) const { return {}; }

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
