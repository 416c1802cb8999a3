#include "worker/checkpoint/host_copy.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstring>

#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// Not by an operator: those use the threads that compute.
at::Tensor CopyOf(const at::Tensor& tensor) {
  const at::Tensor live = tensor.detach().contiguous();
  at::Tensor copy = at::empty(live.sizes(), live.options().requires_grad(false));
  if (live.nbytes() > 0) std::memcpy(copy.mutable_data_ptr(), live.const_data_ptr(), live.nbytes());
  return copy;
}

// Queued on the current stream.
at::Tensor QueueCopyOf(const at::Tensor& tensor) {
  const at::Tensor live = tensor.detach();
  at::Tensor copy = at::empty(live.sizes(), live.options().device(at::kCPU).pinned_memory(true));
  copy.copy_(live, /*non_blocking=*/true);
  return copy;
}

}  // namespace

absl::Status CopyToHost(std::vector<NamedTensor>& tensors, c10::Device device) {
  return CatchTorch([&] {
    if (!device.is_cuda()) {
      for (NamedTensor& named : tensors) named.tensor = CopyOf(named.tensor);
      return absl::OkStatus();
    }
    const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index());
    const c10::cuda::CUDAStreamGuard guard(stream);
    std::vector<NamedTensor> copies = tensors;  // The live ones are held until the device has read them.
    for (NamedTensor& named : copies) {
      if (named.tensor.is_cuda()) named.tensor = QueueCopyOf(named.tensor);
    }
    stream.synchronize();
    tensors = std::move(copies);
    return absl::OkStatus();
  });
}

absl::Status CopyBuffersToHost(std::vector<NamedTensor>& tensors) {
  return CatchTorch([&] {
    for (NamedTensor& named : tensors) {
      if (named.trainable) continue;
      named.tensor = named.tensor.is_cuda() ? named.tensor.detach().to(at::kCPU) : CopyOf(named.tensor);
    }
    return absl::OkStatus();
  });
}

}  // namespace gpipe::worker
