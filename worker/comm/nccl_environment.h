#ifndef GPIPE_WORKER_COMM_NCCL_ENVIRONMENT_H_
#define GPIPE_WORKER_COMM_NCCL_ENVIRONMENT_H_

#include <string>

#include "absl/status/statusor.h"

namespace gpipe::worker {

// The UUID of a GPU: equal for two processes that use the same one.
absl::StatusOr<std::string> GpuIdentity(int device);

// Whether NCCL is going to listen at `data_address`: an interface of this machine has it, and nothing else is set.
bool NcclUsesAddress(const std::string& data_address);

// Sets the variables that NCCL reads when this process first uses it; those that are set already stay.
// NCCL_HOSTID, when this worker shares its GPU: NCCL refuses two ranks on one GPU of one host, so each process claims
// to be a host of its own, and traffic goes over sockets. `shares_gpu`: with another worker of this attempt; with one
// of a later attempt, where NCCL reads nothing any more, it is all but the first process of the GPU that did so from
// the beginning. NCCL_SOCKET_IFNAME: the interface of `data_address`. Two that would change how NcclComm's
// communicators work are taken away. Call before anything else of NCCL, from a thread beside which no other reads the
// environment through getenv.
void PrepareNcclEnvironment(int device, bool shares_gpu, const std::string& data_address);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_NCCL_ENVIRONMENT_H_
