#include "worker/model/rotation.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "worker/model/device_kernel.h"

namespace gpipe::worker {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::pair<at::Tensor, at::Tensor> Halves(const at::Tensor& tensor) {
  const int64_t half = tensor.size(-1) / 2;
  return {tensor.narrow(-1, 0, half), tensor.narrow(-1, half, half)};
}

// Rows are what the last dimension has. `second_first`: the angle of a first half is that of its second one, and the
// other way round.
constexpr char kSource[] = R"cuda(
struct Rows {
  const Bits* data;
  long long strides[3];  // In elements.
};

__device__ inline const Pack* PackAt(const Bits* row, int pack) { return reinterpret_cast<const Pack*>(row) + pack; }

__device__ inline const Bits* RowAt(const Rows& rows, int i, int j, int k) {
  return rows.data + i * rows.strides[0] + j * rows.strides[1] + k * rows.strides[2];
}

extern "C" __global__ void rotate(Rows x, Rows cos, Rows sin, Rows result, int count_j, int count_k, int half_packs,
                                  unsigned threads, float by, int second_first) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const unsigned row = thread / half_packs;
  const int pack = thread % half_packs, other = pack + half_packs;
  const int k = row % count_k, j = row / count_k % count_j, i = row / count_k / count_j;
  const Bits *of_x = RowAt(x, i, j, k), *of_cos = RowAt(cos, i, j, k), *of_sin = RowAt(sin, i, j, k);
  const Pack x1 = *PackAt(of_x, pack), x2 = *PackAt(of_x, other);
  const Pack cos1 = *PackAt(of_cos, pack), cos2 = *PackAt(of_cos, other);
  const Pack sin1 = *PackAt(of_sin, second_first ? other : pack), sin2 = *PackAt(of_sin, second_first ? pack : other);
  Pack made1, made2;
  for (int n = 0; n < WIDTH; ++n) {
    const float one = Load(x1.bits[n]), two = Load(x2.bits[n]);
    made1.bits[n] = Store(one * Load(cos1.bits[n]) - by * (two * Load(sin1.bits[n])));
    made2.bits[n] = Store(two * Load(cos2.bits[n]) + by * (one * Load(sin2.bits[n])));
  }
  Pack* const made = reinterpret_cast<Pack*>(const_cast<Bits*>(RowAt(result, i, j, k)));
  made[pack] = made1;
  made[other] = made2;
}
)cuda";

// Compiled code, of which a process needs no second copy.
DeviceKernel& Kernel() {
  static DeviceKernel kernel("rotate", kSource);
  return kernel;
}

constexpr int kOuterDims = 3;

// As the kernel has it.
struct Rows {
  const void* data = nullptr;
  long long strides[kOuterDims] = {};
};

// REQUIRES: at most one dimension more than kOuterDims.
Rows RowsOf(const at::Tensor& tensor) {
  Rows rows{.data = tensor.const_data_ptr()};
  const int64_t outer = tensor.dim() - 1;
  for (int64_t dim = 0; dim < outer; ++dim) rows.strides[kOuterDims - outer + dim] = tensor.stride(dim);
  return rows;
}

struct Rotated {
  at::Tensor x, cos, sin;  // All of the sizes of x.
};

// The variant that reads them; nullopt where the kernel cannot.
std::optional<DeviceKernel::Variant> VariantOf(const Rotated& in, const at::Tensor& result) {
  const int64_t half = in.x.size(-1) / 2;
  int width = WidthOf(in.x, half);
  for (const at::Tensor& tensor : {in.x, in.cos, in.sin, result}) {
    if (!IsForDeviceKernel(tensor) || tensor.stride(-1) != 1) return std::nullopt;
    width = std::min(width, WidthOf(tensor, half));
  }
  const bool fits = in.x.dim() <= kOuterDims + 1 && in.x.numel() > 0 && in.x.numel() < (int64_t{1} << 31);
  const DeviceKernel::Variant variant{in.x.device().index(), in.x.scalar_type(), width};
  return fits && Kernel().Has(variant) ? std::optional(variant) : std::nullopt;
}

void Launch(const DeviceKernel::Variant& variant, const Rotated& in, const at::Tensor& result, bool back) {
  Rows x = RowsOf(in.x), cos = RowsOf(in.cos), sin = RowsOf(in.sin), made = RowsOf(result);
  int half_packs = static_cast<int>(in.x.size(-1) / 2 / variant.width), second_first = back ? 1 : 0;
  int count_j = in.x.dim() > 2 ? static_cast<int>(in.x.size(-3)) : 1;
  int count_k = in.x.dim() > 1 ? static_cast<int>(in.x.size(-2)) : 1;
  auto threads = static_cast<unsigned>(in.x.numel() / 2 / variant.width);
  float by = back ? -1.0F : 1.0F;
  void* arguments[] = {&x, &cos, &sin, &made, &count_j, &count_k, &half_packs, &threads, &by, &second_first};
  Kernel().Launch(variant, DeviceKernel::GridOf(threads), arguments);
}

// The same by operators: first * cos - by * second * first_angle, and second * cos + by * first * second_angle.
at::Tensor TurnByOperators(const Rotated& in, bool back) {
  const auto [first_sin, second_sin] = Halves(in.sin);
  const auto& [first_angle, second_angle] = back ? std::pair(second_sin, first_sin) : std::pair(first_sin, second_sin);
  const int by = back ? -1 : 1;
  at::Tensor result = at::mul(in.x, in.cos);
  const auto [first, second] = Halves(result);
  const auto [x_first, x_second] = Halves(in.x);
  first.addcmul_(x_second, first_angle, -by);
  second.addcmul_(x_first, second_angle, by);
  return result;
}

// By the transpose of what each pair of numbers was multiplied by, to go back.
at::Tensor Turn(const Rotated& in, bool back) {
  at::Tensor result = in.x.is_cuda() ? at::empty_like(in.x) : at::Tensor();
  const auto variant = result.defined() ? VariantOf(in, result) : std::nullopt;
  if (!variant) {
    result.reset();
    return TurnByOperators(in, back);
  }
  Launch(*variant, in, result, back);
  return result;
}

// A gradient may lie in memory in any way; on a GPU it is turned by the kernel in any case, as its last bits are.
at::Tensor InRows(const at::Tensor& gradient) {
  return gradient.is_cuda() && gradient.stride(-1) != 1 ? gradient.contiguous() : gradient;
}

struct RotationFunction : torch::autograd::Function<RotationFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return Turn({x, cos.expand_as(x), sin.expand_as(x)}, /*back=*/false);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor given = InRows(gradients[0]);
    return {Turn({given, saved[0].expand_as(given), saved[1].expand_as(given)}, /*back=*/true), at::Tensor(),
            at::Tensor()};
  }
};

at::Tensor RotateByOperators(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto [first, second] = Halves(x);
  return x * cos + at::cat({-second, first}, -1) * sin;
}

// The angles are constants of the same type, and make the result no larger than x.
bool IsPlain(const at::Tensor& x, const at::Tensor& angle) {
  return angle.scalar_type() == x.scalar_type() && !angle.requires_grad() && angle.dim() <= x.dim() &&
         angle.dim() > 0 && angle.size(-1) == x.size(-1) && at::infer_size(x.sizes(), angle.sizes()) == x.sizes();
}

}  // namespace

at::Tensor Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const bool is_plain = x.is_floating_point() && IsPlain(x, cos) && IsPlain(x, sin);
  return is_plain ? RotationFunction::apply(x, cos, sin) : RotateByOperators(x, cos, sin);
}

std::vector<const DeviceKernel*> RotationKernels() { return {&Kernel()}; }

}  // namespace gpipe::worker
