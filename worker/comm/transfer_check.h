#ifndef GPIPE_WORKER_COMM_TRANSFER_CHECK_H_
#define GPIPE_WORKER_COMM_TRANSFER_CHECK_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

// What every communicator asks of a transfer. INVALID_ARGUMENT: no such channel, `rank` is not at that end of it, or
// a tensor is not contiguous or not on `device`.
absl::Status CheckSend(const std::vector<Channel>& channels, int rank, int channel, at::TensorList tensors,
                       c10::Device device);
absl::Status CheckReceive(const std::vector<Channel>& channels, int rank, int channel, at::TensorList tensors,
                          c10::Device device);
absl::Status CheckTensor(const at::Tensor& tensor, c10::Device device);

// The channels of an attempt: distinct names, two different ends below `size`. INVALID_ARGUMENT otherwise.
absl::Status CheckChannels(const std::vector<Channel>& channels, int size);

// A transfer that needs nothing more: of a tensor without elements, which no implementation puts on the wire.
std::unique_ptr<Work> CompletedWork();

// A transfer of several tensors where each is one by itself. After an error those that were begun have ended.
absl::StatusOr<std::unique_ptr<Work>> StartEach(
    at::TensorList tensors, absl::FunctionRef<absl::StatusOr<std::unique_ptr<Work>>(const at::Tensor& tensor)> start);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_TRANSFER_CHECK_H_
