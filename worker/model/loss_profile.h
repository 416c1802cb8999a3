#ifndef GPIPE_WORKER_MODEL_LOSS_PROFILE_H_
#define GPIPE_WORKER_MODEL_LOSS_PROFILE_H_

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/model/profile.h"

namespace gpipe::worker {

// What the loss of a micro-batch costs, which the last layer's stage computes, too: over a large vocabulary as much as
// several layers. `output` is the meta tensor of what the loss takes. Nothing where the model computes its loss itself.
// REQUIRES: the request has a loss.
absl::StatusOr<LayerCost> MeasureLoss(const v1::Inspect& request, const at::Tensor& output, LayerProfiler& profiler);

// What such a cost says of memory is of these values: what the loss takes, and names that are no layer's.
ValueNames LossValues(const std::string& output);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_LOSS_PROFILE_H_
