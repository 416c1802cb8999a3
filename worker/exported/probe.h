#ifndef GPIPE_WORKER_EXPORTED_PROBE_H_
#define GPIPE_WORKER_EXPORTED_PROBE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/exported/archive.h"
#include "worker/exported/graph_layer.h"

namespace gpipe::worker {

// Whole runs of an exported program on the CPU, for what its values are like.
class Probe {
 public:
  // `inputs` are the samples' shapes, in the order of the program's inputs; parameters whose names begin with one of
  // `frozen` have no gradient.
  Probe(const Archive& archive, std::vector<v1::ModelValue> inputs, std::vector<std::string> frozen)
      : archive_(archive), inputs_(std::move(inputs)), frozen_(std::move(frozen)) {}

  // Runs with two batch sizes and keeps what these values were. What the program throws is the error.
  absl::Status Run(const std::vector<std::string>& values);

  // Whether the first dimension is the batch, and no other one depends on it. REQUIRES: it was among Run's values.
  bool BatchFirst(const std::string& value) const;
  // Without the batch. REQUIRES: BatchFirst.
  v1::ModelValue Describe(const std::string& value) const;
  // A tensor without memory, of so many samples.
  at::Tensor Meta(const std::string& value, int64_t samples) const;

 private:
  // Throws what LibTorch throws.
  std::map<std::string, at::Tensor> RunOnce(GraphLayer& layer, const std::vector<std::string>& values,
                                            int64_t batch) const;

  const Archive& archive_;
  const std::vector<v1::ModelValue> inputs_;
  const std::vector<std::string> frozen_;
  std::map<std::string, at::Tensor> small_, large_;  // Meta tensors; with requires_grad.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_PROBE_H_
