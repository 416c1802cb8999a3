#ifndef GPIPE_WORKER_EXPORTED_PROBE_H_
#define GPIPE_WORKER_EXPORTED_PROBE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/plan/shape.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/exported/archive.h"
#include "worker/exported/graph_layer.h"

namespace gpipe::worker {

// Whole runs of an exported program, for what its values are like: on meta tensors, which take neither memory nor time;
// where an operator needs to see values, or autocast a device, on the CPU.
class Probe {
 public:
  // `inputs` are the samples' shapes, in the order of the program's inputs; parameters whose names begin with one of
  // `frozen` have no gradient.
  Probe(const Archive& archive, std::vector<v1::ModelValue> inputs, std::vector<std::string> frozen)
      : archive_(archive), inputs_(std::move(inputs)), frozen_(std::move(frozen)) {}

  // Runs with a few batch sizes and keeps what these values were. What the program throws is the error.
  absl::Status Run(const std::vector<std::string>& values);

  // Whether each dimension is a fixed size plus a multiple of the batch. REQUIRES: it was among Run's values.
  bool CanDescribe(const std::string& value) const;
  // REQUIRES: CanDescribe.
  v1::ModelValue Describe(const std::string& value) const;
  // A tensor without memory, of so many samples.
  at::Tensor Meta(const std::string& value, int64_t samples) const;

 private:
  using Values = std::map<std::string, at::Tensor>;

  absl::Status RunOn(c10::Device device, const std::vector<std::string>& values);
  // Throws what LibTorch throws.
  Values RunOnce(GraphLayer& layer, const std::vector<std::string>& values, int64_t batch, c10::Device device) const;

  Shape ShapeOf(const std::string& value) const;

  const Archive& archive_;
  const std::vector<v1::ModelValue> inputs_;
  const std::vector<std::string> frozen_;
  std::vector<Values> runs_;  // By batch size: meta tensors, with requires_grad.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_PROBE_H_
