#ifndef GPIPE_WORKER_MODEL_CROSS_ENTROPY_KERNELS_H_
#define GPIPE_WORKER_MODEL_CROSS_ENTROPY_KERNELS_H_

#include <ATen/core/Tensor.h>

#include <vector>

namespace gpipe::worker {

class DeviceKernel;

// Kernels for the cross entropy of many positions on a GPU: one block a position, which reads its logits once each way.
// Sums are fp32, in an order that is the same each time.

// What rows of logits are to their targets, [positions, 1] fp32 each.
struct RowStatistics {
  at::Tensor of_target;     // The logarithm of its probability; NaN for a target that is none of the classes.
  at::Tensor of_all;        // The sum of the logarithms of all probabilities.
  at::Tensor largest, sum;  // Of the logits, and of the exponentials of what they are below that.
};

// Whether the kernels can read them: logits [positions, classes], of fp32 or lower, with classes beside each other.
bool HaveRowKernels(const at::Tensor& logits);

// REQUIRES: HaveRowKernels; target [positions, 1] int64.
RowStatistics StatisticsOfRows(const at::Tensor& logits, const at::Tensor& target);

// The logits and targets, and what StatisticsOfRows has said of them.
struct RowsOfLogits {
  at::Tensor logits, target, largest, sum;
};

// The logits' gradient, of their type: of each class weight * (probability - each), but of the target weight *
// at_target. `at_target` and `weight` are [positions, 1].
at::Tensor GradientOfRows(const RowsOfLogits& rows, const at::Tensor& at_target, double each, const at::Tensor& weight);

// Those that it has, for tests.
std::vector<const DeviceKernel*> CrossEntropyKernels();

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_CROSS_ENTROPY_KERNELS_H_
