#ifndef GPIPE_WORKER_MODEL_ATTENTION_GRADIENT_H_
#define GPIPE_WORKER_MODEL_ATTENTION_GRADIENT_H_

#include <ATen/core/Tensor.h>

namespace gpipe::worker {

// To be called with what scaled_dot_product_attention has made, before anything uses it: its gradient will come to the
// backward pass in the same layout, by a copy where it has another one.
//
// LibTorch keeps the plans that cuDNN makes for that backward pass by the layouts of query, key and value, and not by
// that of the gradient (ATen/native/cudnn/MHA.cpp, MHAParams), for as long as the process lives. A gradient in another
// layout than the first one's is then read as if it had that one: wrong numbers, without an error. In a worker layouts
// change with the cut, with the job, and with what is measured of a part. Does nothing on a CPU.
void KeepGradientLayout(const at::Tensor& attention);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_ATTENTION_GRADIENT_H_
