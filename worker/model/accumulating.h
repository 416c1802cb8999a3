#ifndef GPIPE_WORKER_MODEL_ACCUMULATING_H_
#define GPIPE_WORKER_MODEL_ACCUMULATING_H_

#include <ATen/core/Tensor.h>

namespace gpipe::worker {

// LibTorch's operators of the same names, whose backward pass adds the weight's gradient to what earlier micro-batches
// have left in `weight.grad()` by the product itself. LibTorch's own makes a tensor of the weight's size and adds that:
// of a language model's micro-batch with a thousand tokens, an eighth of the time.
//
// So it is where the weight is a parameter that is trained, of the same type as what it meets. Elsewhere they are
// LibTorch's own. Called with gradients on, or off; on any device.
//
// The gradient may be of a wider type than the weight (at::Tensor::grad_dtype, in mixed precision). On CUDA the product
// is then made and added in that type; on a CPU it is made in the weight's, and added in that.

// x [..., in], weight [out, in], bias [out] or undefined; [..., out].
at::Tensor AccumulatingLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// bias + x * weight: x [n, in], weight [in, out], bias that broadcasts to [n, out].
at::Tensor AccumulatingAddmm(const at::Tensor& bias, const at::Tensor& x, const at::Tensor& weight);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_ACCUMULATING_H_
