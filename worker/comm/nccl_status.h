#ifndef GPIPE_WORKER_COMM_NCCL_STATUS_H_
#define GPIPE_WORKER_COMM_NCCL_STATUS_H_

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <string_view>

#include "absl/status/status.h"

namespace gpipe::worker {

// The wall behind which NCCL's and CUDA's error codes stay. `doing` names the operation: "sending stages0-1.forward".
// UNAVAILABLE: a peer is gone. `comm`, when not null, is asked for the last error's words.
absl::Status NcclStatus(ncclResult_t result, std::string_view doing, ncclComm_t comm = nullptr);

// RESOURCE_EXHAUSTED when the device is out of memory, INTERNAL otherwise.
absl::Status CudaStatus(cudaError_t error, std::string_view doing);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_NCCL_STATUS_H_
