#ifndef GPIPE_WORKER_MODEL_DROPOUT_H_
#define GPIPE_WORKER_MODEL_DROPOUT_H_

#include <ATen/core/Tensor.h>

#include "worker/model/layer.h"

namespace gpipe::worker {

// x with elements zeroed with probability p and the rest scaled by 1/(1-p); x itself when not training. The mask is
// that of (seed, step, micro-batch, layer, place), `place` telling apart the dropouts of one layer, so that recomputing
// repeats it.
at::Tensor Dropout(const at::Tensor& x, double p, const LayerContext& context, int layer, int place);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_DROPOUT_H_
