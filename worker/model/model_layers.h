#ifndef GPIPE_WORKER_MODEL_MODEL_LAYERS_H_
#define GPIPE_WORKER_MODEL_MODEL_LAYERS_H_

#include <c10/core/Device.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "worker/model/layer.h"
#include "worker/model/precision.h"

namespace gpipe::worker {

// What every model source comes down to: layers in execution order, with the values that flow between them by name.
// Each value is made once: `input` by the data, all others by an earlier layer.
struct ModelLayer {
  int index = 0;       // In the whole model, whatever the cut.
  std::string kind;    // `linear`, ...: for messages.
  std::string prefix;  // Of its tensors' names in the whole model: `3.`.
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::unique_ptr<Layer> layer;
};

struct SequentialOptions {
  int first_layer = 0;
  int layer_count = 0;
  bool deferred_batch_norm = false;
  c10::Device device = c10::kCPU;  // kMeta: shapes only.
  Precision precision = {};        // Whether parameters are cast.
};

// A run of the layers of `model.sequential`. Layer i reads `layer.<i-1>` (the first one `input`) and makes `layer.<i>`;
// a stash makes `skip.<name>` too, which a pop reads.
// REQUIRES: spec::WithDefaults. INVALID_ARGUMENT carries the field path of the layer that cannot be made.
absl::StatusOr<std::vector<ModelLayer>> BuildSequential(const v1::JobSpec& spec, const SequentialOptions& options);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_MODEL_LAYERS_H_
