#include "worker/model/checks.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"

namespace gpipe::worker {

std::string ShapeText(const at::Tensor& tensor) {
  std::string text = "[*";
  for (const int64_t size : tensor.sizes().slice(tensor.dim() > 0 ? 1 : 0)) absl::StrAppend(&text, ", ", size);
  return text + "]";
}

void CheckType(const at::Tensor& x, c10::ScalarType type) {
  TORCH_CHECK_VALUE(x.scalar_type() == type, "expects ", type, ", gets ", x.scalar_type(), ' ', ShapeText(x));
}

void CheckFloating(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.is_floating_point(), "expects floating-point values, gets ", x.scalar_type(), ' ', ShapeText(x));
}

void CheckRank(const at::Tensor& x, int64_t rank, const char* meaning) {
  TORCH_CHECK_VALUE(x.dim() == rank, "expects ", meaning, ", gets ", ShapeText(x));
}

void CheckSize(const at::Tensor& x, int64_t dim, int64_t size, const char* meaning) {
  TORCH_CHECK_VALUE(x.dim() > 1 && x.size(dim) == size, "expects ", size, ' ', meaning, ", gets ", ShapeText(x));
}

void CheckMoreThanOneValue(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.numel() > x.size(1),
                    "expects more than one value per channel in training, gets a micro-batch of ", x.sizes(),
                    "; use fewer chunks or a batch size without so small a rest");
}

int64_t ResolveDim(const at::Tensor& x, int64_t dim) {
  const int64_t resolved = dim < 0 ? dim + x.dim() : dim;
  TORCH_CHECK_VALUE(resolved >= 0 && resolved < x.dim(), "has no dimension ", dim, " in ", ShapeText(x));
  TORCH_CHECK_VALUE(resolved != 0, "dimension ", dim, " of ", ShapeText(x), " is the batch");
  return resolved;
}

}  // namespace gpipe::worker
