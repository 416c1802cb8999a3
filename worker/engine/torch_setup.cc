#include "worker/engine/torch_setup.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include "worker/torch_status.h"

namespace gpipe::worker {

void SetUpTorchProcess() {
  at::set_num_interop_threads(1);
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setDeterministicCuDNN(true);
}

absl::Status SetUpTorchThread(c10::Device device, int threads) {
  return CatchTorch([&]() -> absl::Status {
    at::set_num_threads(threads);
    at::globalContext().setFlushDenormal(false);
    if (!device.is_cuda()) return absl::OkStatus();
    c10::cuda::set_device(device.index());
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index()));
    return absl::OkStatus();
  });
}

absl::Status ReleaseDeviceMemory(c10::Device device) {
  return CatchTorch([&] {
    if (device.is_cuda()) c10::cuda::CUDACachingAllocator::emptyCache();
    return absl::OkStatus();
  });
}

}  // namespace gpipe::worker
