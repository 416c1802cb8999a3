#ifndef GPIPE_WORKER_MODEL_CHECKS_H_
#define GPIPE_WORKER_MODEL_CHECKS_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <string>

namespace gpipe::worker {

// `[*, 3, 8, 8]`: a shape as a user thinks of it, whatever the batch.
std::string ShapeText(const at::Tensor& tensor);

// Each throws c10::ValueError that says what the layer expects and what it gets.
void CheckType(const at::Tensor& x, c10::ScalarType type);
void CheckFloating(const at::Tensor& x);
void CheckRank(const at::Tensor& x, int64_t rank, const char* meaning);
void CheckSize(const at::Tensor& x, int64_t dim, int64_t size, const char* meaning);

// Batch normalisation takes statistics of [N, C, ...] over all but C.
void CheckMoreThanOneValue(const at::Tensor& x);

// A dimension counted from either end, from 0. It must be one of x's, and not the batch.
int64_t ResolveDim(const at::Tensor& x, int64_t dim);

// A size of one number, or two (height, width), as two.
template <typename Repeated>
std::array<int64_t, 2> Pair(const Repeated& field) {
  TORCH_CHECK_VALUE(field.size() == 1 || field.size() == 2, "expects one size or two, gets ", field.size());
  return {field[0], field[field.size() - 1]};
}

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_CHECKS_H_
