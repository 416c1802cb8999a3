#ifndef GPIPE_WORKER_COMM_IN_PROCESS_COMMUNICATOR_H_
#define GPIPE_WORKER_COMM_IN_PROCESS_COMMUNICATOR_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

// Connected communicators of `size` workers that are threads of one process, in rank order; CPU tensors. Nothing is
// buffered: a transfer is one copy, made when both ends have asked for it. Destroying or aborting one makes the
// unfinished transfers of its peers with it fail with UNAVAILABLE.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> MakeInProcessCommunicators(int size,
                                                                                      std::vector<Channel> channels);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_IN_PROCESS_COMMUNICATOR_H_
