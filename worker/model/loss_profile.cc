#include "worker/model/loss_profile.h"

#include <ATen/ATen.h>

#include <memory>
#include <utility>
#include <vector>

#include "worker/data/tensor_file.h"
#include "worker/model/layer.h"
#include "worker/model/loss.h"
#include "worker/model/model_layers.h"

namespace gpipe::worker {
namespace {

// From an output and its target to the loss.
class LossLayer : public Layer {
 public:
  explicit LossLayer(std::unique_ptr<Loss> loss) : loss_(std::move(loss)) {}

  std::vector<at::Tensor> Forward(const LayerContext&, std::vector<at::Tensor> inputs) override {
    const at::Tensor &output = inputs[0], target = inputs[1].detach();
    const int64_t samples = output.size(0);
    loss_->Begin(target, samples);
    return {loss_->Share(output, target, samples)};
  }

 private:
  const std::unique_ptr<Loss> loss_;
};

at::Tensor TargetOf(const v1::Inspect& request, const at::Tensor& output) {
  std::vector<int64_t> shape = {output.size(0)};
  shape.insert(shape.end(), request.target_shape().begin(), request.target_shape().end());
  return at::empty(shape, at::device(c10::kMeta).dtype(ToScalarType(request.target_dtype())));
}

}  // namespace

absl::StatusOr<LayerCost> MeasureLoss(const v1::Inspect& request, const at::Tensor& output, LayerProfiler& profiler) {
  if (request.target_dtype() == v1::DATA_TYPE_UNSPECIFIED) return LayerCost();
  const std::string description = request.loss().SerializeAsString();
  const std::vector<ReadValue> inputs = {{.shape = output, .needs_gradient = true},
                                         {.shape = TargetOf(request, output)}};
  return profiler.Measure(description, inputs, {}, [&] {
    return absl::StatusOr<ModelLayer>(ModelLayer{
        0, "loss", "", {"output", "target"}, {"loss"}, std::make_unique<LossLayer>(Loss::Create(request.loss()))});
  });
}

ValueNames LossValues(const std::string& output) { return {{output, "(target)"}, {"(loss)"}}; }

}  // namespace gpipe::worker
