#ifndef GPIPE_TESTS_UNIT_WORKER_CLOSE_H_
#define GPIPE_TESTS_UNIT_WORKER_CLOSE_H_

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

namespace gpipe::worker {

// Relative to the tensor's largest element: another CPU sums in another order, and where a sum cancels, what is left of
// it differs by as much as elsewhere.
inline void ExpectClose(const at::Tensor& actual, const at::Tensor& expected, const std::string& what) {
  ASSERT_TRUE(actual.defined()) << what;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const double largest = expected.numel() == 0 ? 0 : expected.abs().max().to(at::kDouble).item<double>();
  EXPECT_TRUE(at::allclose(actual, expected, /*rtol=*/0, 1e-5 * largest + 1e-6))
      << what << ": " << (actual - expected).abs().max();
}

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_CLOSE_H_
