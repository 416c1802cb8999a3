#include "worker/model/tensor_layout.h"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>

#include <algorithm>
#include <numeric>

namespace gpipe::worker {
namespace {

DimensionOrder Inverse(const DimensionOrder& order) {
  DimensionOrder inverse(order.size());
  for (size_t i = 0; i < order.size(); ++i) inverse[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  return inverse;
}

std::vector<int64_t> FreshStrides(at::IntArrayRef sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  return strides;
}

// A dimension of one element may have any stride, and operators look at it: a contiguous tensor is given a fresh one's.
at::Tensor WithFreshStrides(const at::Tensor& contiguous) {
  const std::vector<int64_t> strides = FreshStrides(contiguous.sizes());
  return contiguous.strides() == at::IntArrayRef(strides) ? contiguous
                                                          : contiguous.as_strided(contiguous.sizes(), strides);
}

}  // namespace

bool IsDense(at::IntArrayRef sizes, at::IntArrayRef strides) {
  std::vector<size_t> inward(sizes.size());
  std::iota(inward.begin(), inward.end(), size_t{0});
  std::erase_if(inward, [&](size_t dim) { return sizes[dim] == 1; });
  std::ranges::sort(inward, {}, [&](size_t dim) { return strides[dim]; });
  int64_t expected = 1;
  for (const size_t dim : inward) {
    if (strides[dim] != expected) return false;
    expected *= sizes[dim];
  }
  return true;
}

DimensionOrder OrderOf(at::IntArrayRef sizes, at::IntArrayRef strides) {
  const std::vector<int64_t> dense = IsDense(sizes, strides) ? strides.vec() : at::infer_dense_strides(sizes, strides);
  DimensionOrder order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  // Of equal strides the one of a dimension of one element is the inner one: then it comes out as it was.
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    return dense[a] != dense[b] ? dense[a] > dense[b] : sizes[a] != 1 && sizes[b] == 1;
  });
  if (std::ranges::is_sorted(order)) order.clear();
  return order;
}

DimensionOrder FromField(const OrderField& field) { return {field.begin(), field.end()}; }

OrderField ToField(const DimensionOrder& order) { return {order.begin(), order.end()}; }

at::Tensor Ordered(const at::Tensor& tensor, const DimensionOrder& order) {
  return order.empty() ? tensor : tensor.permute(order);
}

at::Tensor Unordered(const at::Tensor& tensor, const DimensionOrder& order) {
  return order.empty() ? tensor : tensor.permute(Inverse(order));
}

at::Tensor EmptyInOrder(at::IntArrayRef sizes, const DimensionOrder& order, const at::TensorOptions& options) {
  std::vector<int64_t> ordered = sizes.vec();
  for (size_t i = 0; i < order.size(); ++i) ordered[i] = sizes[static_cast<size_t>(order[i])];
  const std::vector<int64_t> fresh = FreshStrides(ordered);
  std::vector<int64_t> strides = fresh;
  for (size_t i = 0; i < order.size(); ++i) strides[static_cast<size_t>(order[i])] = fresh[i];
  return at::empty_strided(sizes, strides, options);
}

at::Tensor DenseInOrder(const at::Tensor& tensor, const DimensionOrder& order) {
  if (tensor.layout() != at::kStrided || Ordered(tensor, order).is_contiguous()) return tensor;
  return EmptyInOrder(tensor.sizes(), order, tensor.options()).copy_(tensor);
}

at::Tensor InOrder(const at::Tensor& tensor, const DimensionOrder& order) {
  const at::Tensor values = tensor.detach().resolve_conj().resolve_neg();
  return Unordered(WithFreshStrides(Ordered(values, order).contiguous()), order);
}

}  // namespace gpipe::worker
