#ifndef GPIPE_WORKER_CHECKPOINT_RESUME_H_
#define GPIPE_WORKER_CHECKPOINT_RESUME_H_

#include <filesystem>
#include <vector>

#include "absl/status/status.h"
#include "worker/stage/optimizer.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Copies the parameters and buffers of a checkpoint into live ones of the same name, type and shape. Only the tensors
// this worker has are read. NOT_FOUND or INVALID_ARGUMENT names the tensor and the file.
absl::Status LoadModel(const std::filesystem::path& file, const std::vector<NamedTensor>& state);

// The same for the optimizer's state.
absl::Status LoadOptimizer(const std::filesystem::path& file, Optimizer& optimizer);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_RESUME_H_
