#ifndef GPIPE_WORKER_MODEL_ROTATION_H_
#define GPIPE_WORKER_MODEL_ROTATION_H_

#include <ATen/core/Tensor.h>

#include <vector>

namespace gpipe::worker {

class DeviceKernel;

// Rotary position embedding (Su et al., RoFormer, arXiv:2104.09864) as Hugging Face's and torchtune's models write it,
// `x * cos + cat((-x[..., half:], x[..., :half]), -1) * sin`, on a GPU by one kernel each way instead of
// five and nine, where x is of fp32 or lower, has at most four dimensions and lies in rows. In fp32 it differs by one
// rounding of a sum; in lower precisions it is rounded less often. Nothing of x is kept for the backward pass. `x` is
// [..., even], and `cos` and `sin` are as broadcasting allows.
at::Tensor Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

// Those that it has, for tests.
std::vector<const DeviceKernel*> RotationKernels();

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_ROTATION_H_
