#include "worker/model/layer.h"

#include <ATen/ATen.h>

namespace gpipe::worker {

// In place, as nn.Module.to() does it: the layer has handles of the same tensors.
void Layer::CastParameters(c10::ScalarType type) {
  if (keeps_type()) return;
  for (LayerTensor& entry : tensors_) {
    if (!entry.parameter || !entry.tensor.is_floating_point() || entry.tensor.scalar_type() == type) continue;
    entry.master = entry.tensor.detach();
    entry.tensor.set_data(entry.master.to(type));
  }
}

}  // namespace gpipe::worker
