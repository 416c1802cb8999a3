#ifndef GPIPE_WORKER_MODEL_CHANNEL_STATISTICS_H_
#define GPIPE_WORKER_MODEL_CHANNEL_STATISTICS_H_

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <cstdint>
#include <vector>

namespace gpipe::worker {

// Count, mean and sum of squared deviations of [N, C, ...] per channel; micro-batches are merged as by Chan, Golub and
// LeVeque (1979), because a sum of squares minus a squared mean loses all digits when the mean is large. Of values in
// half a float they are floats.
struct ChannelStatistics {
  int64_t count = 0;
  at::Tensor mean;
  at::Tensor squares;

  static ChannelStatistics Of(const at::Tensor& x) {
    std::vector<int64_t> dims = {0};
    for (int64_t dim = 2; dim < x.dim(); ++dim) dims.push_back(dim);
    const int64_t count = x.numel() / x.size(1);
    const at::Tensor wide = x.detach().to(at::toOpMathType(x.scalar_type()));
    auto [variance, mean] = at::var_mean(wide, at::OptionalIntArrayRef(dims), /*correction=*/at::Scalar(0));
    return {count, mean, variance.mul_(count)};
  }

  void Merge(const ChannelStatistics& other) {
    if (count == 0) {
      *this = other;
      return;
    }
    const double total = static_cast<double>(count + other.count);
    const at::Tensor difference = other.mean - mean;
    mean = mean + difference * (other.count / total);
    squares = squares + other.squares + difference.square() * (count * (other.count / total));
    count += other.count;
  }

  at::Tensor UnbiasedVariance() const { return squares / static_cast<double>(count - 1); }

  // Moves running statistics, which may be of a narrower type, by that share of the way to these. As batch_norm itself
  // does it, behind autograd's back: forward passes that are still to go back have saved them, and do not need them.
  void MoveTo(const at::Tensor& running_mean, const at::Tensor& running_var, const auto& share) const {
    running_mean.variable_data().lerp_(mean.to(running_mean.scalar_type()), share);
    running_var.variable_data().lerp_(UnbiasedVariance().to(running_var.scalar_type()), share);
  }
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_CHANNEL_STATISTICS_H_
