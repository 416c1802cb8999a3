// The sources of kernels of our own, and what they ask of tensors. Needs no GPU.
#include "worker/model/device_kernel.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "worker/model/cross_entropy_kernels.h"
#include "worker/model/gate.h"
#include "worker/model/rotation.h"

namespace gpipe::worker {
namespace {

// A kernel that cannot be compiled is slow single operators, and a line of a log that nobody may read.
TEST(DeviceKernelTest, SourcesAreCompiledForEveryGpuTypeAndWidth) {
  std::vector<const DeviceKernel*> kernels = GateKernels();
  for (const auto& others : {RotationKernels(), CrossEntropyKernels()}) {
    kernels.insert(kernels.end(), others.begin(), others.end());
  }
  for (const DeviceKernel* kernel : kernels) {
    for (const int capability : {75, 80, 90, 100}) {
      for (const c10::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
        for (const int width : {1, type == at::kFloat ? 4 : 8}) {
          const absl::Status checked = kernel->CheckSource(capability, type, width);
          EXPECT_TRUE(checked.ok()) << capability << " " << type << " " << width << ": " << checked;
        }
      }
    }
  }
}

TEST(DeviceKernelTest, AnErrorHasTheCompilersWords) {
  const absl::Status checked = DeviceKernel("broken", "no code").CheckSource(90, at::kFloat, 1);
  EXPECT_EQ(checked.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(checked.message()), testing::HasSubstr("identifier \"no\" is undefined"));
}

// So that a kernel finds them one after the other.
TEST(DeviceKernelTest, RowsAreEvenlyApartOrNot) {
  const at::Tensor x = at::zeros({4, 1, 6, 8});
  EXPECT_EQ(RowStride(x), 8);
  EXPECT_EQ(RowStride(x.narrow(0, 0, 1)), 8);
  EXPECT_EQ(RowStride(x.chunk(2, -1)[1]), 8) << "halves of rows";
  EXPECT_EQ(RowStride(x.select(2, 1)), 48) << "one of six rows";
  EXPECT_EQ(RowStride(x.narrow(2, 1, 1)), 48) << "the same, with its dimension";
  EXPECT_EQ(RowStride(x.chunk(2, 2)[0]), std::nullopt) << "three rows, and three left out";
  EXPECT_EQ(RowStride(x.transpose(2, 3)), std::nullopt);
  EXPECT_EQ(RowStride(x.transpose(0, 2)), std::nullopt);
  EXPECT_EQ(RowStride(at::zeros({8}).expand({3, 5, 8})), 0) << "the same row";
  EXPECT_EQ(RowStride(at::zeros({8})), 8);
  EXPECT_EQ(RowStride(at::zeros({})), std::nullopt);
}

// 16 bytes where rows and strides are whole ones of them, and begin there.
TEST(DeviceKernelTest, WhatIsReadAtOnceLiesSideBySide) {
  const at::Tensor x = at::zeros({6, 8});
  EXPECT_EQ(WidthOf(x, 8), 4);
  EXPECT_EQ(WidthOf(x.to(at::kBFloat16), 8), 8);
  EXPECT_EQ(WidthOf(x.narrow(1, 4, 4), 4), 4);
  EXPECT_EQ(WidthOf(x.narrow(1, 1, 4), 4), 1) << "begins in between";
  EXPECT_EQ(WidthOf(at::zeros({6, 7}).narrow(1, 0, 4), 4), 1) << "the second row does";
  EXPECT_EQ(WidthOf(x, 6), 1) << "a row ends in between";
}

}  // namespace
}  // namespace gpipe::worker
