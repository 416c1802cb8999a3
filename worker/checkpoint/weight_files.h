#ifndef GPIPE_WORKER_CHECKPOINT_WEIGHT_FILES_H_
#define GPIPE_WORKER_CHECKPOINT_WEIGHT_FILES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/checkpoint/ranged_file.h"
#include "worker/data/tensor_loader.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Opens a file that the spec names.
using OpenRanged = std::function<absl::StatusOr<RangedFile>(const std::string& path_in_spec)>;

// Loads live parameters and buffers, those of one worker, from the weights that a model names: one safetensors file, or
// the index of several. Of the files only the headers are read and the ranges of these tensors, of files without any
// nothing. Floating types are converted; names are understood as by safetensors::WeightNames, and a tied parameter, by
// the plan, may be there under any one of its names. NOT_FOUND or INVALID_ARGUMENT names the tensor and the file;
// errors of `open` and of reading stay what they are.
absl::Status LoadWeights(const v1::Model& model, const v1::Plan& plan, const std::vector<NamedTensor>& state,
                         const OpenRanged& open, TensorLoader& loader);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_WEIGHT_FILES_H_
