#include "worker/model/gate.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "worker/model/device_kernel.h"

namespace gpipe::worker {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The formulas, and the order of their operations, are ATen's (native/cuda/ActivationSiluKernel.cu,
// ActivationGeluKernel.cu). `kind` counts as Activation. Rows of `gate` and `up` are some packs apart, those of the
// others lie side by side.
constexpr char kSource[] = R"cuda(
__device__ inline float Activate(int kind, float x) {
  if (kind == 0) return x / (1.0f + expf(-x));
  if (kind == 1) return x * 0.5f * (1.0f + erff(x * 0.70710678118654752440f));
  const float cube = x * x * x;
  const float inner = 0.79788456080286535588f * (x + 0.044715f * cube);
  return 0.5f * x * (1.0f + tanhf(inner));
}

__device__ inline float GoBack(int kind, float x, float gradient) {
  if (kind == 0) {
    const float sigmoid = 1.0f / (1.0f + expf(-x));
    return gradient * sigmoid * (1.0f + x * (1.0f - sigmoid));
  }
  if (kind == 1) {
    const float below = 0.5f * (1.0f + erff(x * 0.70710678118654752440f));
    const float density = expf(x * x * -0.5f) * 0.39894228040143267794f;
    return gradient * (below + x * density);
  }
  const float square = x * x, cube = square * x;
  const float tanh_inner = tanhf(0.79788456080286535588f * (x + 0.044715f * cube));
  const float left = 0.5f * x, right = 1.0f + tanh_inner;
  const float by_left = 0.5f * right;
  const float inner_slope = 0.79788456080286535588f * (1.0f + 3.0f * 0.044715f * square);
  const float by_right = left * (1.0f - tanh_inner * tanh_inner) * inner_slope;
  return gradient * (by_left + by_right);
}

extern "C" __global__ void gate_forward(int kind, const Pack* gate, long long gate_stride, const Pack* up,
                                        long long up_stride, Pack* result, unsigned row_packs, unsigned packs) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const unsigned row = i / row_packs, column = i % row_packs;
  const Pack x = gate[row * gate_stride + column], y = up[row * up_stride + column];
  Pack made;
  for (int j = 0; j < WIDTH; ++j) {
    made.bits[j] = Store(Load(Store(Activate(kind, Load(x.bits[j])))) * Load(y.bits[j]));
  }
  result[i] = made;
}

extern "C" __global__ void gate_backward(int kind, const Pack* gate, long long gate_stride, const Pack* up,
                                         long long up_stride, const Pack* gradient, Pack* of_gate, Pack* of_up,
                                         unsigned row_packs, unsigned packs) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const unsigned row = i / row_packs, column = i % row_packs;
  const Pack x = gate[row * gate_stride + column], y = up[row * up_stride + column], given = gradient[i];
  Pack by_x, by_y;
  for (int j = 0; j < WIDTH; ++j) {
    const float at = Load(x.bits[j]), back = Load(given.bits[j]);
    by_y.bits[j] = Store(back * Load(Store(Activate(kind, at))));
    by_x.bits[j] = Store(GoBack(kind, at, Load(Store(back * Load(y.bits[j])))));
  }
  of_gate[i] = by_x;
  of_up[i] = by_y;
}
)cuda";

// The kernels count in 32 bits.
constexpr int64_t kMostElements = int64_t{1} << 31;

// Compiled code, of which a process needs no second copy.
DeviceKernel& ForwardKernel() {
  static DeviceKernel kernel("gate_forward", kSource);
  return kernel;
}

DeviceKernel& BackwardKernel() {
  static DeviceKernel kernel("gate_backward", kSource);
  return kernel;
}

DeviceKernel::Variant VariantOf(const at::Tensor& gate, const at::Tensor& up) {
  const int64_t row = gate.size(-1);
  return {gate.device().index(), gate.scalar_type(), std::min(WidthOf(gate, row), WidthOf(up, row))};
}

// What both kernels are given, in packs.
struct Operands {
  Operands(const at::Tensor& gate, const at::Tensor& up, const DeviceKernel::Variant& variant)
      : x(gate.const_data_ptr()),
        y(up.const_data_ptr()),
        x_stride(*RowStride(gate) / variant.width),
        y_stride(*RowStride(up) / variant.width),
        row_packs(static_cast<unsigned>(gate.size(-1) / variant.width)),
        packs(static_cast<unsigned>(gate.numel() / variant.width)) {}

  const void *x, *y;
  long long x_stride, y_stride;
  unsigned row_packs, packs;
};

struct GateFunction : torch::autograd::Function<GateFunction> {
  static at::Tensor forward(AutogradContext* context, int64_t activation, const at::Tensor& gate,
                            const at::Tensor& up) {
    context->saved_data["activation"] = activation;
    context->save_for_backward({gate, up});
    at::Tensor result = at::empty(gate.sizes(), gate.options());
    const DeviceKernel::Variant variant = VariantOf(gate, up);
    Operands in(gate, up, variant);
    auto kind = static_cast<int>(activation);
    void* made = result.mutable_data_ptr();
    void* arguments[] = {&kind, &in.x, &in.x_stride, &in.y, &in.y_stride, &made, &in.row_packs, &in.packs};
    ForwardKernel().Launch(variant, DeviceKernel::GridOf(in.packs), arguments);
    return result;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1];
    const DeviceKernel::Variant variant = VariantOf(gate, up);
    Operands in(gate, up, variant);
    at::Tensor gradient = gradients[0].contiguous();
    if (WidthOf(gradient, gradient.numel()) < variant.width) gradient = gradient.clone();  // It begins in between.
    const at::Tensor of_gate = at::empty(gate.sizes(), gate.options()), of_up = at::empty(up.sizes(), up.options());
    auto kind = static_cast<int>(context->saved_data["activation"].toInt());
    const void* given = gradient.const_data_ptr();
    void *by_x = of_gate.mutable_data_ptr(), *by_y = of_up.mutable_data_ptr();
    void* arguments[] = {&kind,  &in.x, &in.x_stride, &in.y,         &in.y_stride,
                         &given, &by_x, &by_y,        &in.row_packs, &in.packs};
    BackwardKernel().Launch(variant, DeviceKernel::GridOf(in.packs), arguments);
    return {at::Tensor(), of_gate, of_up};
  }
};

bool HaveKernels(const at::Tensor& gate, const at::Tensor& up) {
  const bool fit = IsForDeviceKernel(gate) && gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type() &&
                   gate.device() == up.device() && gate.numel() > 0 && gate.numel() < kMostElements &&
                   RowStride(gate) && RowStride(up);
  return fit && ForwardKernel().Has(VariantOf(gate, up)) && BackwardKernel().Has(VariantOf(gate, up));
}

at::Tensor Activated(Activation activation, const at::Tensor& gate) {
  if (activation == Activation::kSilu) return at::silu(gate);
  return at::gelu(gate, activation == Activation::kGelu ? "none" : "tanh");
}

}  // namespace

at::Tensor Gate(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  if (HaveKernels(gate, up)) return GateFunction::apply(static_cast<int64_t>(activation), gate, up);
  return at::mul(Activated(activation, gate), up);
}

std::vector<const DeviceKernel*> GateKernels() { return {&ForwardKernel(), &BackwardKernel()}; }

}  // namespace gpipe::worker
