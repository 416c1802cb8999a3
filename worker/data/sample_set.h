#ifndef GPIPE_WORKER_DATA_SAMPLE_SET_H_
#define GPIPE_WORKER_DATA_SAMPLE_SET_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {

// Where a file that the spec names lies on this machine.
using FileResolver = std::function<absl::StatusOr<std::filesystem::path>(const std::string& path_in_spec)>;

// An input of the model.
struct ModelInput {
  int index = 0;      // In the model's order, which is that of Dataset.inputs.
  std::string value;  // Its name in the plan; in a file for inference its tensor's.
};

// What a worker reads: the inputs that its stages use, and on the last stage's the targets.
struct DataRole {
  std::vector<ModelInput> inputs;
  bool targets = false;
};

// Samples on the CPU, mapped from a file or made up; the first dimension counts them. Only what the role says.
class SampleSet {
 public:
  // Random inputs are torch.randn(samples, *input_shape) from a CPU generator with `seed`, random targets
  // torch.randint(classes, (samples,)) from one with `seed + 1`. Errors name the tensor and the file.
  static absl::StatusOr<SampleSet> Open(const v1::Dataset& dataset, const FileResolver& files, const DataRole& role);
  static absl::StatusOr<SampleSet> Open(const v1::Infer& infer, const FileResolver& files, const DataRole& role);

  // By ModelInput::value.
  const std::map<std::string, at::Tensor>& inputs() const { return inputs_; }
  const at::Tensor& targets() const { return targets_; }

 private:
  // `tensors` are named in the file, by ModelInput::value.
  absl::Status Map(const std::string& path, const std::map<std::string, std::string>& tensors,
                   const std::string& target, const FileResolver& files);

  std::unique_ptr<TensorFile> file_;  // The tensors are views of it.
  std::map<std::string, at::Tensor> inputs_;
  at::Tensor targets_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_SAMPLE_SET_H_
