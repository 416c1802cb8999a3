#ifndef GPIPE_WORKER_CHECKPOINT_HOST_COPY_H_
#define GPIPE_WORKER_CHECKPOINT_HOST_COPY_H_

#include <c10/core/Device.h>

#include <vector>

#include "absl/status/status.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Replaces tensors by copies in host memory, and returns when they are complete. From CUDA they go through pinned
// memory on a stream of their own, beside what the device computes. Any thread.
absl::Status CopyToHost(std::vector<NamedTensor>& tensors, c10::Device device);

// The same for those that are not trained, buffers among them, on the current stream.
absl::Status CopyBuffersToHost(std::vector<NamedTensor>& tensors);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_HOST_COPY_H_
