#ifndef GPIPE_WORKER_CHECKPOINT_RESUME_H_
#define GPIPE_WORKER_CHECKPOINT_RESUME_H_

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/checkpoint/ranged_file.h"
#include "worker/stage/optimizer.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// The files with a checkpoint's model or optimizer, of which only the headers and the ranges of this worker's tensors
// are read. Used by one thread.
class CheckpointTensors {
 public:
  // INVALID_ARGUMENT: one is no good safetensors file, or a name is in two of them.
  static absl::StatusOr<CheckpointTensors> Open(std::vector<RangedFile> files);

  // Fills live parameters and buffers with the tensors of the same name, type and shape. NOT_FOUND or INVALID_ARGUMENT
  // names the tensor.
  absl::Status LoadModel(const std::vector<NamedTensor>& state, TensorLoader& loader) const;

  // The same for the optimizer's state, of which there may be none.
  absl::Status LoadOptimizer(Optimizer& optimizer) const;

 private:
  struct Place {
    size_t file = 0;
    safetensors::TensorInfo info;
  };

  // REQUIRES: each of them has a place.
  absl::Status Load(const std::vector<NamedTensor>& tensors, TensorLoader& loader) const;

  std::vector<RangedFile> files_;
  std::map<std::string, Place> places_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_RESUME_H_
