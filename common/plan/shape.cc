#include "common/plan/shape.h"

#include <algorithm>
#include <limits>

#include "common/safetensors/header.h"

namespace gpipe {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

}  // namespace

Shape FixedShape(const std::vector<int64_t>& sizes) {
  Shape shape;
  for (const int64_t size : sizes) shape.Add()->set_fixed(size);
  return shape;
}

Shape BatchShape(const std::vector<int64_t>& sample) {
  Shape shape;
  shape.Add()->set_per_sample(1);
  shape.MergeFrom(FixedShape(sample));
  return shape;
}

bool BeginsWithBatch(const Shape& shape) {
  if (shape.empty() || shape.begin()->fixed() != 0 || shape.begin()->per_sample() != 1) return false;
  return std::all_of(shape.begin() + 1, shape.end(), [](const v1::Dimension& size) { return size.per_sample() == 0; });
}

std::vector<int64_t> SampleShape(const Shape& shape) {
  std::vector<int64_t> sample = SizesFor(shape, 1);
  sample.erase(sample.begin());
  return sample;
}

std::vector<int64_t> SizesFor(const Shape& shape, int64_t samples) {
  std::vector<int64_t> sizes;
  for (const v1::Dimension& size : shape) {
    int64_t batch = 0, both = 0;
    const bool too_large = __builtin_mul_overflow(samples, size.per_sample(), &batch) ||
                           __builtin_add_overflow(batch, size.fixed(), &both);
    sizes.push_back(too_large ? kMost : both);
  }
  return sizes;
}

int64_t ClassesIn(const Shape& shape, int64_t dim) {
  if (dim < 0) dim += shape.size();
  return dim > 0 && dim < shape.size() ? shape[static_cast<int>(dim)].fixed() : 0;
}

bool IsDifferentiable(v1::DataType dtype) {
  switch (dtype) {
    case v1::DATA_TYPE_FLOAT16:
    case v1::DATA_TYPE_BFLOAT16:
    case v1::DATA_TYPE_FLOAT32:
    case v1::DATA_TYPE_FLOAT64:
    case v1::DATA_TYPE_COMPLEX64:
    case v1::DATA_TYPE_COMPLEX128:
      return true;
    default:
      return false;
  }
}

int64_t BytesFor(const Shape& shape, v1::DataType dtype, int64_t samples) {
  int64_t bytes = safetensors::ElementSize(dtype);
  for (const int64_t size : SizesFor(shape, samples)) {
    if (size == 0) return 0;
    if (__builtin_mul_overflow(bytes, size, &bytes)) bytes = kMost;
  }
  return bytes;
}

}  // namespace gpipe
