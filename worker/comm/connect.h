#ifndef GPIPE_WORKER_COMM_CONNECT_H_
#define GPIPE_WORKER_COMM_CONNECT_H_

#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"
#include "worker/comm/rendezvous.h"

namespace gpipe::worker {

struct CommOptions {
  int rank = 0;
  int size = 1;
  c10::Device device = c10::kCPU;
  std::string data_address;                    // Where this worker's peers reach it: host name or address.
  std::vector<Channel> channels;               // All channels of the attempt, the same on every worker.
  absl::Duration timeout = absl::Seconds(60);  // For all peers to join.
};

// Connects this worker with its peers: NCCL when the device is CUDA, Gloo on CPU, and nothing at all when size is 1.
// Blocks until all have joined. `rendezvous` must outlive the result. Aborting `rendezvous` wakes it. A status with
// UnreachablePeer (worker/comm/reach.h) names the worker that could not be connected to.
absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommOptions& options, Rendezvous& rendezvous);

// How a worker finds its peers: Connect, or another one in tests.
using Connector =
    std::function<absl::StatusOr<std::unique_ptr<Communicator>>(const CommOptions& options, Rendezvous& rendezvous)>;

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_CONNECT_H_
