#ifndef GPIPE_WORKER_CHECKPOINT_RESUME_H_
#define GPIPE_WORKER_CHECKPOINT_RESUME_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/stage/optimizer.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Copies the parameters and buffers of a checkpoint into live ones of the same name, type and shape. Only the tensors
// this worker has are read. NOT_FOUND or INVALID_ARGUMENT names the tensor and the file.
absl::Status LoadModel(const std::filesystem::path& file, const std::vector<NamedTensor>& state);

// Fetches a file that the spec names.
using FetchFile = std::function<absl::StatusOr<std::filesystem::path>(const std::string& path_in_spec)>;

// The same from the weights that a spec names, one file or the index of several, of which only those with tensors of
// this worker are fetched. A tied parameter, by the plan, may be there under any one of its names.
absl::Status LoadWeights(const std::string& weights, const v1::Plan& plan, const std::vector<NamedTensor>& state,
                         const FetchFile& fetch);

// The same for the optimizer's state.
absl::Status LoadOptimizer(const std::filesystem::path& file, Optimizer& optimizer);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_RESUME_H_
