#ifndef GPIPE_WORKER_ENGINE_TORCH_SETUP_H_
#define GPIPE_WORKER_ENGINE_TORCH_SETUP_H_

#include <c10/core/Device.h>

#include "absl/status/statusor.h"

namespace gpipe::worker {

// Settings of LibTorch for the whole process, once, before any tensor work: one inter-op thread, true float32
// everywhere (no TF32), deterministic convolutions.
void SetUpTorchProcess();

// Settings of the calling thread, for each thread that works on tensors: `threads` cores for one operation, its device,
// there a stream of its own (what is queued on the default one cannot be recorded as a CUDA graph), and no flushing of
// denormals, so that every worker computes the same numbers.
absl::Status SetUpTorchThread(c10::Device device, int threads);

// Gives memory that no tensor uses back to the device, for other processes on it.
absl::Status ReleaseDeviceMemory(c10::Device device);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_TORCH_SETUP_H_
