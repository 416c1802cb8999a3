#ifndef GPIPE_WORKER_COMM_TRANSFER_CHECK_H_
#define GPIPE_WORKER_COMM_TRANSFER_CHECK_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

// What every communicator asks of a transfer. INVALID_ARGUMENT: no such channel, `rank` is not at that end of it, or
// the tensor is not contiguous or not on `device`.
absl::Status CheckSend(const std::vector<Channel>& channels, int rank, int channel, const at::Tensor& tensor,
                       c10::Device device);
absl::Status CheckReceive(const std::vector<Channel>& channels, int rank, int channel, const at::Tensor& tensor,
                          c10::Device device);
absl::Status CheckTensor(const at::Tensor& tensor, c10::Device device);

// The channels of an attempt: distinct names, two different ends below `size`. INVALID_ARGUMENT otherwise.
absl::Status CheckChannels(const std::vector<Channel>& channels, int size);

// A transfer that needs nothing more: of a tensor without elements, which no implementation puts on the wire.
std::unique_ptr<Work> CompletedWork();

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_TRANSFER_CHECK_H_
