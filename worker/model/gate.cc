#include "worker/model/gate.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <string>
#include <utility>

#include "worker/model/device_kernel.h"

namespace gpipe::worker {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The formulas are ATen's (native/cuda/ActivationSiluKernel.cu, ActivationGeluKernel.cu). `kind` counts as Activation.
constexpr char kSource[] = R"cuda(
__device__ inline float Activate(int kind, float x) {
  if (kind == 0) return x / (1.0f + expf(-x));
  if (kind == 1) return x * 0.5f * (1.0f + erff(x * 0.70710678118654752440f));
  const float inner = 0.79788456080286535588f * (x + 0.044715f * x * x * x);
  return 0.5f * x * (1.0f + tanhf(inner));
}

// Of Activate by x.
__device__ inline float Slope(int kind, float x) {
  if (kind == 0) {
    const float sigmoid = 1.0f / (1.0f + expf(-x));
    return sigmoid * (1.0f + x * (1.0f - sigmoid));
  }
  if (kind == 1) {
    const float below = 0.5f * (1.0f + erff(x * 0.70710678118654752440f));
    return below + x * 0.39894228040143267794f * expf(-0.5f * x * x);
  }
  const float tanh_inner = tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x));
  const float inner_slope = 0.79788456080286535588f * (1.0f + 3.0f * 0.044715f * x * x);
  return 0.5f * (1.0f + tanh_inner) + 0.5f * x * (1.0f - tanh_inner * tanh_inner) * inner_slope;
}

extern "C" __global__ void gate_forward(int kind, const Pack* gate, const Pack* up, Pack* result, long long packs) {
  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const Pack x = gate[i], y = up[i];
  Pack made;
  for (int j = 0; j < WIDTH; ++j) {
    made.bits[j] = Store(Load(Store(Activate(kind, Load(x.bits[j])))) * Load(y.bits[j]));
  }
  result[i] = made;
}

extern "C" __global__ void gate_backward(int kind, const Pack* gate, const Pack* up, const Pack* gradient,
                                         Pack* of_gate, Pack* of_up, long long packs) {
  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const Pack x = gate[i], y = up[i], given = gradient[i];
  Pack by_x, by_y;
  for (int j = 0; j < WIDTH; ++j) {
    const float at = Load(x.bits[j]), back = Load(given.bits[j]);
    by_y.bits[j] = Store(back * Load(Store(Activate(kind, at))));
    by_x.bits[j] = Store(Load(Store(back * Load(y.bits[j]))) * Slope(kind, at));
  }
  of_gate[i] = by_x;
  of_up[i] = by_y;
}
)cuda";

// Compiled code, of which a process needs no second copy.
DeviceKernel& ForwardKernel() {
  static DeviceKernel kernel("gate_forward", kSource);
  return kernel;
}

DeviceKernel& BackwardKernel() {
  static DeviceKernel kernel("gate_backward", kSource);
  return kernel;
}

DeviceKernel::Variant VariantOf(std::initializer_list<at::Tensor> contiguous) {
  const at::Tensor& first = *contiguous.begin();
  int width = WidthOf(first, first.numel());
  for (const at::Tensor& tensor : contiguous) width = std::min(width, WidthOf(tensor, tensor.numel()));
  return {first.device().index(), first.scalar_type(), width};
}

bool AreAlike(const at::Tensor& one, const at::Tensor& other) {
  return one.sizes() == other.sizes() && one.scalar_type() == other.scalar_type() && one.device() == other.device() &&
         one.is_contiguous() && other.is_contiguous() && one.numel() > 0;
}

struct GateFunction : torch::autograd::Function<GateFunction> {
  static at::Tensor forward(AutogradContext* context, int64_t activation, const at::Tensor& gate,
                            const at::Tensor& up) {
    context->saved_data["activation"] = activation;
    context->save_for_backward({gate, up});
    at::Tensor result = at::empty_like(gate);
    const DeviceKernel::Variant variant = VariantOf({gate, up, result});
    auto kind = static_cast<int>(activation);
    const void *x = gate.const_data_ptr(), *y = up.const_data_ptr();
    void* made = result.mutable_data_ptr();
    long long packs = gate.numel() / variant.width;
    void* arguments[] = {&kind, &x, &y, &made, &packs};
    ForwardKernel().Launch(variant, packs, arguments);
    return result;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], gradient = gradients[0].contiguous();
    const at::Tensor of_gate = at::empty_like(gate), of_up = at::empty_like(up);
    const DeviceKernel::Variant variant = VariantOf({gate, up, gradient, of_gate, of_up});
    auto kind = static_cast<int>(context->saved_data["activation"].toInt());
    const void *x = gate.const_data_ptr(), *y = up.const_data_ptr(), *given = gradient.const_data_ptr();
    void *by_x = of_gate.mutable_data_ptr(), *by_y = of_up.mutable_data_ptr();
    long long packs = gate.numel() / variant.width;
    void* arguments[] = {&kind, &x, &y, &given, &by_x, &by_y, &packs};
    BackwardKernel().Launch(variant, packs, arguments);
    return {at::Tensor(), of_gate, of_up};
  }
};

at::Tensor Activated(Activation activation, const at::Tensor& gate) {
  if (activation == Activation::kSilu) return at::silu(gate);
  return at::gelu(gate, activation == Activation::kGelu ? "none" : "tanh");
}

}  // namespace

at::Tensor Gate(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  const bool fits = IsForDeviceKernel(gate) && AreAlike(gate, up);
  if (fits && ForwardKernel().Has(VariantOf({gate, up})) && BackwardKernel().Has(VariantOf({gate, up}))) {
    return GateFunction::apply(static_cast<int64_t>(activation), gate, up);
  }
  return at::mul(Activated(activation, gate), up);
}

}  // namespace gpipe::worker
