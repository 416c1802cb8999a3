#include "common/plan/shape.h"

#include <algorithm>

#include "common/safetensors/header.h"

namespace gpipe {

Shape BatchShape(const std::vector<int64_t>& sample) {
  Shape shape;
  shape.Add()->set_per_sample(1);
  for (const int64_t size : sample) shape.Add()->set_fixed(size);
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
  for (const v1::Dimension& size : shape) sizes.push_back(size.fixed() + samples * size.per_sample());
  return sizes;
}

int64_t BytesFor(const Shape& shape, v1::DataType dtype, int64_t samples) {
  int64_t bytes = safetensors::ElementSize(dtype);
  for (const int64_t size : SizesFor(shape, samples)) bytes *= size;
  return bytes;
}

}  // namespace gpipe
