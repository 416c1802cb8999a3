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

// Of the halves of x: first * cos - by * second * first_angle, and second * cos + by * first * second_angle.
at::Tensor Turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& first_angle,
                const at::Tensor& second_angle, int by) {
  at::Tensor result = at::mul(x, cos);
  const auto [first, second] = Halves(result);
  const auto [x_first, x_second] = Halves(x);
  first.addcmul_(x_second, first_angle, -by);
  second.addcmul_(x_first, second_angle, by);
  return result;
}

struct RotationFunction : torch::autograd::Function<RotationFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    const auto [first, second] = Halves(sin);
    return Turn(x, cos, first, second, 1);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto [first, second] = Halves(saved[1]);
    // By the transpose of what each pair of numbers was multiplied by.
    return {Turn(gradients[0], saved[0], second, first, -1), at::Tensor(), at::Tensor()};
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
