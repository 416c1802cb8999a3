#ifndef GPIPE_COMMON_PLAN_GRADIENT_NORM_H_
#define GPIPE_COMMON_PLAN_GRADIENT_NORM_H_

#include "gpipe/v1/job_spec.pb.h"

namespace gpipe {

// Whether each step needs the norm of the gradients over all stages before its update: to clip them, or because in fp16
// all workers leave out a step together whose gradients overflowed.
inline bool NeedsGradientNorm(const v1::Train& train) {
  return train.grad_clip_norm() > 0 || train.precision() == v1::PRECISION_FP16;
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_PLAN_GRADIENT_NORM_H_
