#ifndef GPIPE_WORKER_DATA_SAMPLE_SET_H_
#define GPIPE_WORKER_DATA_SAMPLE_SET_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "worker/data/samples.h"

namespace gpipe::worker {

// Where a file that the spec names lies on this machine. NOT_FOUND: it is not among the job's files.
using FileResolver = std::function<absl::StatusOr<std::filesystem::path>(const std::string& path_in_spec)>;

// An input of the model.
struct ModelInput {
  int index = 0;       // In the model's order, which is that of Dataset.inputs.
  std::string value;   // Its name in the plan; in a file for inference its tensor's.
  bool whole = false;  // It has no samples: every micro-batch gets the whole tensor.
};

// What a worker reads: the inputs that its stages use, and on the last stage's the targets.
struct DataRole {
  std::vector<ModelInput> inputs;
  bool targets = false;
};

// The samples of a data set, mapped from its files or made up. Only what the role says. Movable.
class SampleSet {
 public:
  // Random inputs are torch.randn(samples, *input_shape) from a CPU generator with `seed`, random targets
  // torch.randint(classes, (samples,)) from one with `seed + 1`. Errors name the tensor and the file.
  static absl::StatusOr<SampleSet> Open(const v1::Dataset& dataset, const FileResolver& files, const DataRole& role);
  static absl::StatusOr<SampleSet> Open(const v1::Infer& infer, const FileResolver& files, const DataRole& role);

  // By ModelInput::value.
  const std::map<std::string, std::unique_ptr<Samples>>& inputs() const { return inputs_; }
  // Those without samples, in memory, which is the set's: to be read only.
  const std::map<std::string, at::Tensor>& whole() const { return whole_; }
  // Null: none are read.
  const Samples* targets() const { return targets_.get(); }
  bool tokens() const { return tokens_; }

 private:
  // What to read of a table.
  struct Wanted {
    std::string value;   // ModelInput::value.
    std::string tensor;  // Its name in the table.
    bool whole = false;
  };
  absl::Status Map(const data::SampleTable& table, const std::vector<Wanted>& inputs, const std::string& target);

  std::map<std::string, std::unique_ptr<Samples>> inputs_;
  std::map<std::string, at::Tensor> whole_;
  std::unique_ptr<Samples> targets_;
  bool tokens_ = false;  // They are windows of tokens.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_SAMPLE_SET_H_
