#ifndef GPIPE_TESTS_UNIT_WORKER_CLOSE_H_
#define GPIPE_TESTS_UNIT_WORKER_CLOSE_H_

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

namespace gpipe::worker {

inline double LargestOf(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0 : tensor.abs().max().to(at::kDouble).item<double>();
}

// Relative to the tensor's largest element: another CPU sums in another order, and where a sum cancels, what is left of
// it differs by as much as elsewhere. Where all of a tensor's sums cancel, as in the gradient of a bias ahead of a
// norm, which is zero, all of it is rounding: it is allowed what numbers of the size of `terms`, of which it is the
// sum, have.
inline void ExpectClose(const at::Tensor& actual, const at::Tensor& expected, const std::string& what,
                        double terms = 1) {
  ASSERT_TRUE(actual.defined()) << what;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const double allowed = 1e-5 * LargestOf(expected) + 1e-6 * terms;
  EXPECT_TRUE(at::allclose(actual, expected, /*rtol=*/0, allowed))
      << what << ": " << (actual - expected).abs().max() << " of " << allowed;
}

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_CLOSE_H_
