#ifndef GPIPE_WORKER_DATA_DATA_SOURCE_H_
#define GPIPE_WORKER_DATA_DATA_SOURCE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

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

// One mini-batch, as far as this worker reads it.
struct Batch {
  std::map<std::string, at::Tensor> inputs;  // By ModelInput::value.
  std::map<std::string, at::Tensor> whole;   // Those without samples; the same tensors in all batches of a data set.
  at::Tensor target;
};

// The mini-batches of a job, as far as this worker reads them. Used by one thread at a time.
class DataSource {
 public:
  struct Options {
    bool pinned = false;  // Batches are made in pinned memory.
    // With cross_entropy, how many classes the model tells apart; 0: targets are not looked at.
    int64_t classes = 0;
    // Whole numbers that the model takes are below it: rows of the table in which it looks them up. 0: not known; of
    // tokens, which are targets too, then `classes` is.
    int64_t input_limit = 0;
  };
  static absl::StatusOr<std::unique_ptr<DataSource>> Create(const v1::JobSpec& spec, const FileResolver& files,
                                                            const DataRole& role, const Options& options);

  // Whether this worker reads anything at all.
  bool empty() const { return samples_.inputs().empty() && samples_.whole().empty() && samples_.targets() == nullptr; }

  // The samples of a kTrain, kEvaluate, kInfer or kCheckLoss round, on the CPU. OUT_OF_RANGE: the data set has fewer
  // samples than the plan says, or a target, or a token, that is none of the classes.
  absl::StatusOr<Batch> Read(const pipeline::Round& round);

 private:
  DataSource(const v1::JobSpec& spec, const Options& options);

  // The numbers of the round's samples in their order. REQUIRES: there are so many.
  std::vector<int64_t> NumbersOf(const pipeline::Round& round, int64_t samples);
  absl::StatusOr<at::Tensor> Rows(const Samples& samples, const pipeline::Round& round);

  const Options options_;
  const int64_t ignored_;
  SampleSet samples_;  // Training or inference.
  SampleSet evaluation_;
  std::optional<uint64_t> shuffle_seed_;
  int64_t order_epoch_ = -1;
  at::Tensor order_;  // Of order_epoch_.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_DATA_SOURCE_H_
