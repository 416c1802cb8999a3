#ifndef GPIPE_WORKER_ENGINE_SHARED_GRADIENTS_H_
#define GPIPE_WORKER_ENGINE_SHARED_GRADIENTS_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/status/status.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/comm/communicator.h"
#include "worker/engine/channels.h"
#include "worker/engine/hosted_stages.h"

namespace gpipe::worker {

// Keeps the copies of a parameter that several workers have equal: each worker's gradient becomes the sum of all, so
// that equal optimizers make equal updates. Used by the engine's thread only.
class SharedGradients {
 public:
  // `channels` must outlive it.
  SharedGradients(const v1::Plan& plan, const HostedStages& stages, const ChannelMap& channels, int worker);

  // All workers with shared parameters call it together. The sum is formed in the workers' order.
  absl::Status Reduce(Communicator& communicator) const;

  // After the update: only the first worker keeps the sum, which counts once where more is added to it.
  void KeepOne() const;

 private:
  struct Shared {
    at::Tensor parameter;
    const SharingWorkers* group = nullptr;
  };

  absl::Status AddUp(const Shared& shared, Communicator& communicator) const;
  absl::Status SendAndTake(const Shared& shared, Communicator& communicator) const;

  const int worker_;
  std::vector<Shared>
      shared_;  // Those that this worker has, in the same order on every worker: so none waits in a circle.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_SHARED_GRADIENTS_H_
