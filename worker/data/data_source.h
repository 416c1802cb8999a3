#ifndef GPIPE_WORKER_DATA_DATA_SOURCE_H_
#define GPIPE_WORKER_DATA_DATA_SOURCE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "pipeline/timeline.h"
#include "worker/data/sample_set.h"

namespace gpipe::worker {

// The order in which an epoch visits the samples: torch.randperm(samples) from a CPU generator with
// ShuffleSeed(seed, epoch). The same on every worker.
at::Tensor EpochOrder(int64_t samples, uint64_t seed, int64_t epoch);

// splitmix64(seed + splitmix64(epoch)): neighbouring seeds and epochs give unrelated orders.
uint64_t ShuffleSeed(uint64_t seed, int64_t epoch);

// One mini-batch on the worker's device, as far as it reads it.
struct Batch {
  std::map<std::string, at::Tensor> inputs;  // By ModelInput::value.
  at::Tensor target;
};

// The mini-batches of a job, as far as this worker reads them. Used by the engine's thread only.
class DataSource {
 public:
  static absl::StatusOr<std::unique_ptr<DataSource>> Create(const v1::JobSpec& spec, const FileResolver& files,
                                                            const DataRole& role, c10::Device device);

  // The samples of a kTrain, kEvaluate or kInfer round. On CUDA the copy is asynchronous, from pinned memory.
  // OUT_OF_RANGE when the data set has fewer samples than the plan says.
  absl::StatusOr<Batch> Read(const pipeline::Round& round);

 private:
  explicit DataSource(c10::Device device) : device_(device) {}

  absl::StatusOr<at::Tensor> Rows(const at::Tensor& samples, const pipeline::Round& round);
  // Reads `round`'s samples in their order into one tensor.
  at::Tensor Gather(const at::Tensor& samples, const pipeline::Round& round);
  at::Tensor ToDevice(at::Tensor rows) const;

  const c10::Device device_;
  SampleSet samples_;  // Training or inference.
  SampleSet evaluation_;
  std::optional<uint64_t> shuffle_seed_;
  int64_t order_epoch_ = -1;
  at::Tensor order_;  // Of order_epoch_.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_DATA_SOURCE_H_
