#include "worker/stage/loss_scale.h"

#include <ATen/ATen.h>

namespace gpipe::worker {
namespace {

// torch.amp.GradScaler's.
constexpr double kGrowth = 2, kBackoff = 0.5;
constexpr int64_t kGrowthInterval = 2000;

}  // namespace

LossScale::LossScale(c10::Device device)
    : scale_(at::full({}, kFirst, at::device(device).dtype(at::kFloat))),
      overflow_(at::zeros_like(scale_)),
      good_steps_(at::zeros({}, at::device(device).dtype(at::kInt))) {}

at::Tensor LossScale::Unscale(const at::Tensor& squares) {
  overflow_.copy_(squares.sum().isfinite().logical_not());
  return squares / scale_.to(at::kDouble).square();
}

void LossScale::Update() { at::_amp_update_scale_(scale_, good_steps_, overflow_, kGrowth, kBackoff, kGrowthInterval); }

}  // namespace gpipe::worker
