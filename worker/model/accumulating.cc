#include "worker/model/accumulating.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cstdint>
#include <optional>

#include "worker/model/shared_input.h"

namespace gpipe::worker {
namespace {

using ::torch::autograd::AutogradContext;
using ::torch::autograd::variable_list;

bool Accumulates(const at::Tensor& weight, const at::Tensor& other) {
  return at::GradMode::is_enabled() && weight.is_leaf() && weight.requires_grad() && !weight.is_meta() &&
         weight.scalar_type() == other.scalar_type() && !weight.is_complex() && weight.dim() == 2 &&
         weight.is_contiguous() && !at::autocast::is_autocast_enabled(weight.device().type());
}

at::Tensor Rows(const at::Tensor& tensor) { return tensor.reshape({-1, tensor.size(-1)}); }

// CPUs have no product of halves that adds to floats.
void AddProduct(at::Tensor& sum, const at::Tensor& left, const at::Tensor& right) {
  if (sum.scalar_type() == left.scalar_type()) {
    sum.addmm_(left, right);
  } else if (sum.is_cuda()) {
    at::addmm_out(sum, sum, left, right, sum.scalar_type());
  } else {
    sum.add_(at::mm(left, right));
  }
}

at::Tensor ZeroGradient(const at::Tensor& weight) {
  return at::zeros_like(weight, weight.options().dtype(weight.grad_dtype().value_or(weight.scalar_type())));
}

// Adds left * right to the gradient; where there is none yet, that is left to autograd. On CUDA a product that adds may
// be another kernel, with other last bits: a stage that is captured has zeroes there, and so has one that is not.
at::Tensor AddProductTo(const at::Tensor& weight, const at::Tensor& left, const at::Tensor& right) {
  at::Tensor& gradient = weight.mutable_grad();
  if (!gradient.defined()) {
    if (!weight.is_cuda()) return at::mm(left, right);
    gradient = ZeroGradient(weight);
  }
  AddProduct(gradient, left, right);
  return {};
}

// What a product with a weight keeps, and what its backward pass gives to the others.
struct Product {
  static void Save(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["needs_x"] = x.requires_grad();
    if (bias && bias->requires_grad()) context->saved_data["bias"] = bias->sizes().vec();
  }

  // `x` is its number among the function's inputs.
  static at::Tensor OfX(AutogradContext* context, uint32_t x, const at::Tensor& gradient, const at::Tensor& weight) {
    const bool is_left = context->saved_data["needs_x"].toBool() && !AddToSharedInput(x, gradient, weight);
    return is_left ? at::matmul(gradient, weight) : at::Tensor();
  }

  static at::Tensor OfBias(AutogradContext* context, const at::Tensor& gradient) {
    const auto sizes = context->saved_data.find("bias");
    if (sizes == context->saved_data.end()) return {};
    return at::sum_to(gradient, sizes->second.toIntVector());
  }
};

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  // An argument that may be undefined is optional to autograd.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    Product::Save(context, x, weight, bias);
    return at::linear(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gradient = gradients[0], &x = saved[0], &weight = saved[1];
    const at::Tensor of_weight = AddProductTo(weight, Rows(gradient).t(), Rows(x));
    return {Product::OfX(context, 0, gradient, weight), of_weight, Product::OfBias(context, gradient)};
  }
};

struct AddmmFunction : torch::autograd::Function<AddmmFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& bias, const at::Tensor& x,
                            const at::Tensor& weight) {
    Product::Save(context, x, weight, bias);
    return at::addmm(bias, x, weight);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gradient = gradients[0], &x = saved[0], &weight = saved[1];
    const at::Tensor of_weight = AddProductTo(weight, x.t(), gradient);
    return {Product::OfBias(context, gradient), Product::OfX(context, 1, gradient, weight.t()), of_weight};
  }
};

}  // namespace

at::Tensor AccumulatingLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!Accumulates(weight, x)) return at::linear(x, weight, bias);
  return LinearFunction::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor AccumulatingAddmm(const at::Tensor& bias, const at::Tensor& x, const at::Tensor& weight) {
  return Accumulates(weight, x) ? AddmmFunction::apply(bias, x, weight) : at::addmm(bias, x, weight);
}

}  // namespace gpipe::worker
