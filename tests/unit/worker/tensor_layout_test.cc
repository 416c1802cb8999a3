#include "worker/model/tensor_layout.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpipe::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

DimensionOrder OrderOfTensor(const at::Tensor& tensor) { return OrderOf(tensor.sizes(), tensor.strides()); }

at::Tensor ChannelsLast(at::IntArrayRef sizes) { return at::rand(sizes).contiguous(at::MemoryFormat::ChannelsLast); }

TEST(TensorLayoutTest, TheOrderIsThatOfTheStrides) {
  EXPECT_THAT(OrderOfTensor(at::rand({2, 3, 4})), IsEmpty());
  EXPECT_THAT(OrderOfTensor(at::rand({})), IsEmpty());
  EXPECT_THAT(OrderOfTensor(at::rand({2, 3, 4}).transpose(1, 2)), ElementsAre(0, 2, 1));
  EXPECT_THAT(OrderOfTensor(at::rand({2, 3, 4}).permute({2, 0, 1})), ElementsAre(1, 2, 0));
  EXPECT_THAT(OrderOfTensor(ChannelsLast({2, 3, 4, 5})), ElementsAre(0, 2, 3, 1));
}

TEST(TensorLayoutTest, OfATensorThatIsNotDenseItIsTheClones) {
  const at::Tensor sliced = at::rand({2, 3, 8}).transpose(1, 2).slice(1, 0, 8, 2);
  EXPECT_EQ(OrderOfTensor(sliced), OrderOfTensor(sliced.clone()));
  EXPECT_THAT(OrderOfTensor(sliced), ElementsAre(0, 2, 1));
  EXPECT_THAT(OrderOfTensor(at::rand({2, 1, 4}).expand({2, 3, 4})), IsEmpty());
}

TEST(TensorLayoutTest, ATensorIsCopiedWhereItLiesInAnotherOrder) {
  const at::Tensor fresh = at::rand({2, 3, 4}), turned = at::rand({3, 2, 4}).transpose(0, 1);
  EXPECT_EQ(DenseInOrder(fresh, {}).data_ptr(), fresh.data_ptr());
  EXPECT_EQ(DenseInOrder(turned, {1, 0, 2}).data_ptr(), turned.data_ptr());
  EXPECT_TRUE(DenseInOrder(turned, {}).is_contiguous());
  EXPECT_EQ(DenseInOrder(fresh, {1, 0, 2}).strides(), turned.strides());
  EXPECT_TRUE(at::equal(DenseInOrder(fresh, {1, 0, 2}), fresh));
  EXPECT_FALSE(DenseInOrder(fresh, {1, 0, 2}).is_view());
}

// Kernels choose by the strides, also by those of dimensions of one element.
TEST(TensorLayoutTest, WhatIsSentArrivesWithTheSameStrides) {
  for (const at::Tensor& tensor : {ChannelsLast({2, 3, 4, 5}), ChannelsLast({2, 1, 4, 5}), ChannelsLast({2, 3, 1, 1}),
                                   ChannelsLast({1, 3, 4, 5}), at::rand({2, 1, 4, 5}), at::rand({2, 3, 1, 1})}) {
    const DimensionOrder order = OrderOfTensor(tensor);
    const at::Tensor made = EmptyInOrder(tensor.sizes(), order, tensor.options());
    EXPECT_EQ(made.strides(), tensor.strides()) << tensor.sizes();
    const at::Tensor kept = InOrder(tensor, order);
    EXPECT_EQ(kept.data_ptr(), tensor.data_ptr()) << "nothing is copied";
    EXPECT_EQ(kept.strides(), made.strides());
    EXPECT_TRUE(Ordered(kept, order).is_contiguous());
    EXPECT_TRUE(at::equal(Unordered(Ordered(kept, order), order), tensor));
  }
}

TEST(TensorLayoutTest, ValuesAreArrangedAsTheyAreAskedFor) {
  const at::Tensor tensor = at::rand({2, 3, 4});
  const at::Tensor arranged = InOrder(tensor, {2, 0, 1});
  EXPECT_TRUE(at::equal(arranged, tensor));
  EXPECT_THAT(OrderOfTensor(arranged), ElementsAre(2, 0, 1));
  EXPECT_THAT(OrderOfTensor(InOrder(arranged, {})), IsEmpty());
}

TEST(TensorLayoutTest, NothingLazyIsSent) {
  const at::Tensor numbers = at::view_as_complex(at::rand({3, 2}));
  for (const at::Tensor& lazy : {numbers.conj(), at::imag(numbers.conj())}) {
    const at::Tensor sent = InOrder(lazy, {});
    EXPECT_FALSE(sent.is_conj() || sent.is_neg());
    EXPECT_TRUE(at::equal(sent, lazy));
  }
}

}  // namespace
}  // namespace gpipe::worker
