#ifndef GPIPE_WORKER_MODEL_CROSS_ENTROPY_H_
#define GPIPE_WORKER_MODEL_CROSS_ENTROPY_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gpipe::worker {

struct CrossEntropyOptions {
  int64_t class_dim = 1;  // Of the output; negative from the end.
  int64_t ignored = -100;
  double smoothing = 0;
  int64_t block_bytes = 0;  // Of probabilities at once, by blocks. 0 stands for what suits the device.
};

// PyTorch's cross entropy for large vocabularies: logits stay in their type, probabilities are fp32 (fp64 for fp64
// logits), and the backward pass keeps the logits and needs their gradient, nothing else of that size. On a GPU, where
// classes lie beside each other and logits are of fp32 or lower, it is computed by kernels that read them once each way
// (cross_entropy_kernels.h); elsewhere by LibTorch's operators, a block of positions at a time, whose probabilities are
// let go before the next one. Nothing is read back from the device and nothing is random. REQUIRES of all: the output
// and the target, which is int64, have passed CheckLossFits. Errors are exceptions. Any thread.

// The sum over all positions that count, divided by `count`, a scalar on the device (0 gives NaN, as in PyTorch); with
// gradients, through which one backward pass can go.
at::Tensor CrossEntropy(const at::Tensor& output, const at::Tensor& target, const at::Tensor& count,
                        const CrossEntropyOptions& options);

// How many positions that count have the target as the class of the largest logit, and how many count: two int64.
at::Tensor ClassHits(const at::Tensor& output, const at::Tensor& target, const CrossEntropyOptions& options);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_CROSS_ENTROPY_H_
