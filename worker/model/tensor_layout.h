#ifndef GPIPE_WORKER_MODEL_TENSOR_LAYOUT_H_
#define GPIPE_WORKER_MODEL_TENSOR_LAYOUT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "gpipe/v1/plan.pb.h"

namespace gpipe::worker {

// How a dense tensor lies in memory: its dimensions from the outermost to the innermost; empty: in their own order, as
// a fresh tensor. Layouts matter: a view() that follows is possible with some strides only, and kernels of other
// layouts round in other ways.
using DimensionOrder = std::vector<int64_t>;

// Whether the elements lie next to each other, in whatever order.
bool IsDense(at::IntArrayRef sizes, at::IntArrayRef strides);

// The order of a tensor with these strides; of one that is not dense (a slice, a broadcast) that of its clone, which
// has the same dimensions next to each other, so that every view() of the one is one of the other.
DimensionOrder OrderOf(at::IntArrayRef sizes, at::IntArrayRef strides);

// As messages have it.
using OrderField = google::protobuf::RepeatedField<int32_t>;
DimensionOrder FromField(const OrderField& field);
OrderField ToField(const DimensionOrder& order);

// The tensor with its dimensions in that order, so that a dense one becomes contiguous; and back. Views.
at::Tensor Ordered(const at::Tensor& tensor, const DimensionOrder& order);
at::Tensor Unordered(const at::Tensor& tensor, const DimensionOrder& order);

// A tensor of these sizes with any values, which lies in that order. No view: one that is made without gradients could
// not be written to with them.
at::Tensor EmptyInOrder(at::IntArrayRef sizes, const DimensionOrder& order, const at::TensorOptions& options);

// The tensor, or where it is not dense in that order a copy of it that is, through which gradients pass.
at::Tensor DenseInOrder(const at::Tensor& tensor, const DimensionOrder& order);

// The tensor's values, detached, with the very strides of EmptyInOrder; the tensor itself, where it has them. Nothing
// lazy is left in it: its bytes are its values.
at::Tensor InOrder(const at::Tensor& tensor, const DimensionOrder& order);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_TENSOR_LAYOUT_H_
