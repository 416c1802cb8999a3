#ifndef GPIPE_WORKER_MODEL_SEGMENT_H_
#define GPIPE_WORKER_MODEL_SEGMENT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/model_layers.h"

namespace gpipe::worker {

// Runs a layer; errors begin with its name: `layer 4 (linear): `.
absl::StatusOr<std::vector<at::Tensor>> RunLayer(const ModelLayer& layer, const LayerContext& context,
                                                 std::vector<at::Tensor> inputs);

// Consecutive layers as one function of the values that enter to the values that leave. Used by one thread.
class Segment {
 public:
  // INTERNAL when a value is read, or leaves, that neither enters nor is made here.
  static absl::StatusOr<Segment> Create(std::vector<ModelLayer> layers, const std::vector<std::string>& entering,
                                        const std::vector<std::string>& leaving);

  const std::vector<ModelLayer>& layers() const { return layers_; }

  // `values` in the order of `entering`, the result in that of `leaving`. A value is let go of after its last use, so
  // that without gradients only what is needed stays in memory.
  absl::StatusOr<std::vector<at::Tensor>> Run(const LayerContext& context, std::vector<at::Tensor> values) const;

  // As Layer has them.
  void EndMiniBatch() const;
  void ForgetMiniBatch(int64_t step) const;

 private:
  // Positions of a layer's values in the table that Run works on.
  struct Step {
    std::vector<size_t> inputs;
    std::vector<size_t> outputs;
    std::vector<size_t> dead;  // Not used after this step.
  };

  Segment() = default;
  void FindLastUses();

  std::vector<ModelLayer> layers_;
  std::vector<Step> steps_;
  std::vector<size_t> leaving_;
  size_t slots_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_SEGMENT_H_
