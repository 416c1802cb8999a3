#ifndef GPIPE_WORKER_MODEL_SHARED_INPUT_H_
#define GPIPE_WORKER_MODEL_SHARED_INPUT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gpipe::worker {

// The same values for several products with weights, as attention's q, k and v are: in the backward pass each product
// adds its part of x's gradient to that of the others by itself (AddToSharedInput), where autograd would add tensors of
// x's size. So it is on a GPU, where x needs a gradient; elsewhere it is x, as products round in other ways there.
// REQUIRES: neither x nor what is returned is written to before the last of the products, and a backward pass that
// comes to one of them goes on to x.
at::Tensor ShareInput(const at::Tensor& x);

// Of an autograd function's backward, called while that runs: adds gradient * weight to the gradient of the function's
// input of this number, and returns true, if that is a shared one. gradient [..., out], weight [out, in].
bool AddToSharedInput(uint32_t input, const at::Tensor& gradient, const at::Tensor& weight);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_SHARED_INPUT_H_
