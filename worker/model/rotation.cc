#include "worker/model/rotation.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace gpipe::worker {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::pair<at::Tensor, at::Tensor> Halves(const at::Tensor& tensor) {
  const int64_t half = tensor.size(-1) / 2;
  return {tensor.narrow(-1, 0, half), tensor.narrow(-1, half, half)};
}

at::Tensor RotateForward(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  at::Tensor result = at::mul(x, cos);
  const auto [first, second] = Halves(result);
  const auto [x_first, x_second] = Halves(x);
  const auto [sin_first, sin_second] = Halves(sin);
  first.addcmul_(x_second, sin_first, -1);
  second.addcmul_(x_first, sin_second);
  return result;
}

// By the transpose of what each pair of numbers was multiplied by.
at::Tensor RotateBackward(const at::Tensor& gradient, const at::Tensor& cos, const at::Tensor& sin) {
  at::Tensor result = at::mul(gradient, cos);
  const auto [first, second] = Halves(result);
  const auto [gradient_first, gradient_second] = Halves(gradient);
  const auto [sin_first, sin_second] = Halves(sin);
  first.addcmul_(gradient_second, sin_second);
  second.addcmul_(gradient_first, sin_first, -1);
  return result;
}

struct RotationFunction : torch::autograd::Function<RotationFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return RotateForward(x, cos, sin);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {RotateBackward(gradients[0], saved[0], saved[1]), at::Tensor(), at::Tensor()};
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

}  // namespace gpipe::worker
