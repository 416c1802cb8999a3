#ifndef GPIPE_COMMON_SPEC_TARGET_TYPES_H_
#define GPIPE_COMMON_SPEC_TARGET_TYPES_H_

#include <string>

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::spec {

// Whether the type is float32, float64, float16 or bfloat16.
bool IsFloating(v1::DataType dtype);

// Whether the loss compares the model's output with a target.
inline bool HasTarget(const v1::Loss& loss) { return !loss.has_model_output() && !loss.has_client(); }

// Why a loss cannot use targets of that type, and which ones it can; empty where it can. PyTorch's losses take these:
// mse any real numbers, bce_with_logits floating ones, cross_entropy numbers of classes or, as floating ones,
// probabilities of all classes. Pure; any thread.
std::string ProblemWithTarget(const v1::Loss& loss, v1::DataType dtype);

}  // namespace gpipe::spec

#endif  // GPIPE_COMMON_SPEC_TARGET_TYPES_H_
