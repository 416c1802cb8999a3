#ifndef GPIPE_WORKER_DATA_SAMPLE_SET_H_
#define GPIPE_WORKER_DATA_SAMPLE_SET_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {

// Where a file that the spec names lies on this machine.
using FileResolver = std::function<absl::StatusOr<std::filesystem::path>(const std::string& path_in_spec)>;

// What a worker reads: only the first stage's needs inputs, only the last stage's targets.
struct DataRole {
  bool inputs = false;
  bool targets = false;
};

// Samples on the CPU, mapped from a file or made up; the first dimension counts them. Undefined where the role says no.
class SampleSet {
 public:
  // Random inputs are torch.randn(samples, *input_shape) from a CPU generator with `seed`, random targets
  // torch.randint(classes, (samples,)) from one with `seed + 1`. Errors name the tensor and the file.
  static absl::StatusOr<SampleSet> Open(const v1::Dataset& dataset, const FileResolver& files, DataRole role);
  static absl::StatusOr<SampleSet> Open(const v1::Infer& infer, const FileResolver& files, DataRole role);

  const at::Tensor& inputs() const { return inputs_; }
  const at::Tensor& targets() const { return targets_; }

 private:
  absl::Status Map(const std::string& path, const std::string& input, const std::string& target,
                   const FileResolver& files, DataRole role);

  std::unique_ptr<TensorFile> file_;  // The tensors are views of it.
  at::Tensor inputs_;
  at::Tensor targets_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_SAMPLE_SET_H_
