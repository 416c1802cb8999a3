#ifndef GPIPE_WORKER_ENGINE_SHARED_GRADIENTS_H_
#define GPIPE_WORKER_ENGINE_SHARED_GRADIENTS_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <vector>

#include "absl/status/status.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/comm/communicator.h"
#include "worker/engine/hosted_stages.h"

namespace gpipe::worker {

// Keeps the copies of a parameter that several workers have equal: each worker's gradient becomes the sum of all, so
// that equal optimizers make equal updates. Used by the engine's thread only.
class SharedGradients {
 public:
  SharedGradients(const v1::Plan& plan, const HostedStages& stages, c10::Device device);

  // All workers of the attempt call it together; one without the parameter adds nothing to it.
  absl::Status Reduce(Communicator& communicator) const;

 private:
  struct Shared {
    at::Tensor parameter;  // Undefined on a worker without it.
    std::vector<int64_t> shape;
    c10::ScalarType dtype;
  };

  const c10::Device device_;
  std::vector<Shared> shared_;  // The same order on every worker.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_SHARED_GRADIENTS_H_
