#ifndef GPIPE_COMMON_PLAN_SHARED_TENSORS_H_
#define GPIPE_COMMON_PLAN_SHARED_TENSORS_H_

#include <vector>

#include "gpipe/v1/plan.pb.h"

namespace gpipe {

// A parameter or buffer that stages of several workers use, each its own copy.
struct SharedTensor {
  const v1::ModelTensor* tensor = nullptr;  // Of the plan.
  std::vector<int> workers;                 // Ascending; the first one's copy is the one that is saved.
};

// In the order of their names. `plan` must outlive the result.
std::vector<SharedTensor> SharedTensors(const v1::Plan& plan);

// Whether gradients must be summed over workers before an update.
bool SharesGradients(const v1::Plan& plan);

}  // namespace gpipe

#endif  // GPIPE_COMMON_PLAN_SHARED_TENSORS_H_
