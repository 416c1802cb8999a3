#ifndef GPIPE_WORKER_MODEL_INSPECT_H_
#define GPIPE_WORKER_MODEL_INSPECT_H_

#include <c10/core/Device.h>

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::worker {

// Runs the model on meta tensors, layer by layer, to find each layer's output shape, type and parameters; checks the
// loss against the output; if asked, measures each layer on `device` (warm-up discarded, median of several).
// Never throws: what does not fit is in Inspected.status, as INVALID_ARGUMENT with the layer's field path.
v1::Inspected InspectModel(const v1::Inspect& request, c10::Device device);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_INSPECT_H_
