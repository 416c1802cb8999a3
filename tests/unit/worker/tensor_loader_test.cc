#include "worker/data/tensor_loader.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace gpipe::worker {
namespace {

// The bytes of a tensor in row-major order, and how they are asked for.
struct Source {
  explicit Source(const at::Tensor& tensor) : bytes(tensor.contiguous()) {}

  ReadBytes Reader() {
    return [this](uint64_t offset, absl::Span<char> data) {
      largest = std::max(largest, data.size());
      read += data.size();
      std::memcpy(data.data(), static_cast<const char*>(bytes.const_data_ptr()) + offset, data.size());
      return absl::OkStatus();
    };
  }

  at::Tensor bytes;
  size_t largest = 0;
  size_t read = 0;
};

TEST(TensorLoaderTest, ConvertsLargeTensorsInPieces) {
  const at::Tensor stored = at::randn({3, 7 << 20}).to(at::kBFloat16);
  Source source(stored);
  const at::Tensor live = at::zeros({3, 7 << 20}, at::kFloat);
  TensorLoader loader(at::kCPU);
  ASSERT_TRUE(loader.Fill(live, at::kBFloat16, source.Reader()).ok());
  EXPECT_TRUE(at::equal(live, stored.to(at::kFloat)));
  EXPECT_LE(source.largest, TensorLoader::kPieceBytes);
  EXPECT_EQ(source.read, static_cast<size_t>(stored.nbytes()));
}

TEST(TensorLoaderTest, ARowLargerThanAPieceIsCut) {
  const at::Tensor stored = at::arange(2 * (10 << 20), at::kInt).view({2, 10 << 20});
  Source source(stored);
  const at::Tensor live = at::zeros({10 << 20, 2}, at::kInt).t();
  TensorLoader loader(at::kCPU);
  ASSERT_TRUE(loader.Fill(live, at::kInt, source.Reader()).ok());
  EXPECT_TRUE(at::equal(live, stored));
  EXPECT_LE(source.largest, TensorLoader::kPieceBytes);
}

TEST(TensorLoaderTest, FillsAnyStridesAndSizes) {
  TensorLoader loader(at::kCPU);
  for (const at::Tensor& live :
       {at::zeros({4, 5}).t(), at::zeros({}), at::zeros({0, 3}), at::zeros({2, 3, 4}).permute({2, 0, 1}),
        at::zeros({6, 4}).narrow(1, 1, 2), at::zeros({3}).set_requires_grad(true)}) {
    const at::Tensor stored = at::randn(live.sizes());
    Source source(stored);
    ASSERT_TRUE(loader.Fill(live, at::kFloat, source.Reader()).ok());
    EXPECT_TRUE(at::equal(live, stored)) << live.sizes();
  }
}

TEST(TensorLoaderTest, ErrorsOfReadingStayWhatTheyAre) {
  TensorLoader loader(at::kCPU);
  const auto fail = [](uint64_t, absl::Span<char>) { return absl::UnavailableError("gone"); };
  EXPECT_EQ(loader.Fill(at::zeros({2}), at::kFloat, fail), absl::UnavailableError("gone"));
  EXPECT_EQ(loader.Fill(at::zeros({2}), at::kHalf, fail), absl::UnavailableError("gone"));
}

}  // namespace
}  // namespace gpipe::worker
