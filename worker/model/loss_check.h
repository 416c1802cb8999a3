#ifndef GPIPE_WORKER_MODEL_LOSS_CHECK_H_
#define GPIPE_WORKER_MODEL_LOSS_CHECK_H_

#include <ATen/core/Tensor.h>

#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::worker {

// An output, or a target of probabilities, with its classes where torch has them, in dimension 1; for another loss as
// it is.
at::Tensor ClassesSecond(const v1::Loss& loss, const at::Tensor& output);

// Throws c10::ValueError when an output and a target (which model_output has not) do not go together in this loss.
// Shapes and types are looked at, not values; meta tensors will do.
void CheckLossFits(const v1::Loss& loss, const at::Tensor& output, const at::Tensor& target);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_LOSS_CHECK_H_
