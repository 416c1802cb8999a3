#ifndef GPIPE_WORKER_MODEL_GATE_H_
#define GPIPE_WORKER_MODEL_GATE_H_

#include <ATen/core/Tensor.h>

#include <vector>

namespace gpipe::worker {

class DeviceKernel;

// What `gate` goes through; kGeluTanh is gelu(approximate="tanh").
enum class Activation { kSilu, kGelu, kGeluTanh };

// activation(gate) * up, of the gated linear units of language models (Shazeer, GLU Variants Improve Transformer,
// arXiv:2002.05202): on a GPU one kernel each way instead of two and three, which keeps no activation(gate) for the
// backward pass, and rounds where the operators do: where both are of one size, of fewer than 2^31 elements, and of one
// type, fp32 or lower, and lie in rows that are evenly apart, as the halves of one product do. Otherwise it is done by
// the operators.
at::Tensor Gate(Activation activation, const at::Tensor& gate, const at::Tensor& up);

// Those that it has, for tests.
std::vector<const DeviceKernel*> GateKernels();

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_GATE_H_
