#ifndef GPIPE_WORKER_MODEL_PROFILE_H_
#define GPIPE_WORKER_MODEL_PROFILE_H_

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/model/device_speed.h"
#include "worker/model/layer_run.h"
#include "worker/model/model_layers.h"

namespace gpipe::worker {

struct LayerCost {
  int64_t forward_nanos = 0;
  int64_t backward_nanos = 0;
  LayerMemory memory;
};

// A value that a layer reads, for measuring the layer.
struct ReadValue {
  at::Tensor shape;             // A meta tensor of the micro-batch.
  bool needs_gradient = false;  // No matter where there can be none: of integers, or where nothing is trained.
  bool summed = false;          // A gradient is added to the one that later readers of the value have made.
};

// Of what each layer reads, in the order of the layers: the values that layers behind it read, too.
std::vector<std::set<std::string>> ReadLater(const std::vector<std::vector<std::string>>& reads);

// The values that a layer reads and makes, by the names that they have in the whole model.
struct ValueNames {
  std::vector<std::string> read, made;
};

// Adds what a micro-batch of so many samples was measured to cost to a layer's description, behind what is there.
void AddCost(const LayerCost& cost, int64_t samples, const ValueNames& names, v1::LayerInfo& layer);

// Measures layers one at a time on a device: the first run discarded, then the median of at least five, unless its
// share of the time for the whole model is used up. Layers that are alike are measured once. What would take seconds
// for a single run is not run, but estimated from the work that there is. Used by one thread.
class LayerProfiler {
 public:
  // `layers` is the number of calls to come.
  LayerProfiler(c10::Device device, bool training, int layers);

  // `description` tells layers of different cost apart; `build` is called when none like it has been measured. `work`
  // is that of one forward; with nothing in it the layer is measured, however long that takes.
  // Random values of the inputs' shapes are used. Without gradients, or not in training, there is no backward.
  absl::StatusOr<LayerCost> Measure(const std::string& description, const std::vector<ReadValue>& inputs,
                                    const LayerWork& work, absl::FunctionRef<absl::StatusOr<ModelLayer>()> build);

  // What a layer is expected to cost that is not run.
  LayerCost Estimate(const LayerWork& work);

 private:
  LayerCost MeasureNow(const ModelLayer& layer, const std::vector<at::Tensor>& inputs, absl::Duration limit) const;
  // Of a GPU alone, as in a stage that is captured; an error where the layer cannot be.
  absl::StatusOr<LayerCost> MeasureCaptured(const ModelLayer& layer, const std::vector<at::Tensor>& inputs,
                                            absl::Duration limit, const LayerRun& warm_up) const;
  at::Tensor RandomInput(const ReadValue& value) const;
  // Nullopt: it is quick enough to be measured.
  std::optional<LayerCost> EstimateIfLong(const LayerWork& work);

  const c10::Device device_;
  const bool training_;
  DeviceSpeed speed_;
  int layers_left_;
  absl::Duration time_left_;
  std::map<std::string, LayerCost> known_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_PROFILE_H_
