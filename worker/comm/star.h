#ifndef GPIPE_WORKER_COMM_STAR_H_
#define GPIPE_WORKER_COMM_STAR_H_

#include <ATen/core/Tensor.h>

#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

// Transfers of the collectives, apart from all channels. One between two workers at a time in each direction.
class StarLinks {
 public:
  virtual absl::StatusOr<std::unique_ptr<Work>> SendTo(int peer, const at::Tensor& tensor) = 0;
  virtual absl::StatusOr<std::unique_ptr<Work>> ReceiveFrom(int peer, const at::Tensor& tensor) = 0;

 protected:
  ~StarLinks() = default;
};

// Collectives as stars of transfers: an abort wakes them like any transfer, and the order of a sum is fixed, which
// all-reduce algorithms of the libraries do not promise. Meant for small tensors: worker 0 receives size-1 of them.

// Worker 0 ends up with ((t0 + t1) + t2) + ...; the others keep their tensor.
absl::Status StarReduceSum(StarLinks& links, int rank, int size, const at::Tensor& tensor);

absl::Status StarBroadcast(StarLinks& links, int rank, int size, const at::Tensor& tensor, int root);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_STAR_H_
