#include "worker/model/meta_kernels.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

namespace gpipe::worker {
namespace {

using at::Tensor;

Tensor Same(const Tensor& x) { return at::empty_like(x); }
Tensor& SameInPlace(Tensor& x) { return x; }

Tensor IndexSelect(const Tensor& x, int64_t dim, const Tensor& index) {
  std::vector<int64_t> shape = x.sizes().vec();
  if (!shape.empty()) shape[at::maybe_wrap_dim(dim, x.dim())] = index.numel();
  return at::empty(shape, x.options());
}

// The result, then mean and 1/deviation of each row that is normalised.
std::tuple<Tensor, Tensor, Tensor> LayerNorm(const Tensor& x, at::IntArrayRef normalized, const std::optional<Tensor>&,
                                             const std::optional<Tensor>&, double) {
  const int64_t first = x.dim() - static_cast<int64_t>(normalized.size());
  TORCH_CHECK_VALUE(first >= 0 && x.sizes().slice(first) == normalized, "layer_norm expects the last dimensions ",
                    normalized, ", gets ", x.sizes());
  std::vector<int64_t> rows = x.sizes().vec();
  std::fill(rows.begin() + first, rows.end(), 1);
  return {at::empty_like(x), at::empty(rows, x.options()), at::empty(rows, x.options())};
}

// The result, then mean and 1/deviation of each channel.
std::tuple<Tensor, Tensor, Tensor> BatchNorm(const Tensor& x, const std::optional<Tensor>&,
                                             const std::optional<Tensor>&, const std::optional<Tensor>&,
                                             const std::optional<Tensor>&, bool, double, double) {
  const Tensor channels = at::empty({x.size(1)}, x.options());
  return {at::empty_like(x), channels, at::empty_like(channels)};
}

int64_t ConvolvedSize(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t reach = dilation * (kernel - 1) + 1;
  const int64_t room = size + 2 * padding - reach;
  TORCH_CHECK_VALUE(room >= 0, "expects at least ", reach - 2 * padding, " for its kernel, gets ", size);
  return room / stride + 1;
}

// A size or one for all dimensions.
int64_t At(at::IntArrayRef sizes, size_t i) { return sizes.size() == 1 ? sizes[0] : sizes[i]; }

Tensor Convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>&, at::IntArrayRef stride,
                   at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
                   int64_t groups) {
  TORCH_CHECK_VALUE(x.dim() == weight.dim() && x.size(1) == (transposed ? weight.size(0) : weight.size(1) * groups),
                    "expects the channels of its weight ", weight.sizes(), ", gets ", x.sizes());
  std::vector<int64_t> shape = {x.size(0), transposed ? weight.size(1) * groups : weight.size(0)};
  for (size_t i = 0; i + 2 < static_cast<size_t>(x.dim()); ++i) {
    const int64_t size = x.size(static_cast<int64_t>(i) + 2), kernel = weight.size(static_cast<int64_t>(i) + 2);
    shape.push_back(transposed ? (size - 1) * At(stride, i) - 2 * At(padding, i) + At(dilation, i) * (kernel - 1) +
                                     At(output_padding, i) + 1
                               : ConvolvedSize(size, kernel, At(stride, i), At(padding, i), At(dilation, i)));
  }
  return at::empty(shape, x.options());
}

}  // namespace

void RegisterMetaKernels() {
  static const torch::Library* const library = [] {
    auto* made = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__, __LINE__);
    made->impl("relu", Same);
    made->impl("relu_", SameInPlace);
    made->impl("index_select", IndexSelect);
    made->impl("native_layer_norm", LayerNorm);
    made->impl("native_batch_norm", BatchNorm);
    made->impl("convolution", Convolution);
    return made;  // Never let go of: LibTorch outlives whatever could.
  }();
  static_cast<void>(library);
}

}  // namespace gpipe::worker
