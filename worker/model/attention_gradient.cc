#include "worker/model/attention_gradient.h"

#include <ATen/ATen.h>

#include <vector>

namespace gpipe::worker {
namespace {

// Of a dimension with one element the stride says nothing.
bool HasStrides(const at::Tensor& tensor, at::IntArrayRef strides) {
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (tensor.size(dim) != 1 && tensor.stride(dim) != strides[static_cast<size_t>(dim)]) return false;
  }
  return true;
}

}  // namespace

void KeepGradientLayout(const at::Tensor& attention) {
  if (!attention.is_cuda() || !attention.requires_grad()) return;
  attention.register_hook([strides = attention.strides().vec()](const at::Tensor& gradient) {
    if (!gradient.defined() || HasStrides(gradient, strides)) return gradient;
    at::Tensor laid_out = at::empty_strided(gradient.sizes(), strides, gradient.options());
    laid_out.copy_(gradient);
    return laid_out;
  });
}

}  // namespace gpipe::worker
