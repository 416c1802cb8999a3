#include "orchestrator/scheduling/loss_judgement.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_format.h"

namespace gpipe::orchestrator {
namespace {

// Of the larger one of two losses that ought to be equal: what rounding takes.
constexpr double kTolerance = 1e-4;
constexpr double kHalfPrecisionTolerance = 0.01;

// As bfloat16 and float16 are, whose last 13 of a float's bits are zero.
bool IsHalfPrecision(double loss) { return (std::bit_cast<uint32_t>(static_cast<float>(loss)) & 0x1fff) == 0; }

bool IsClose(double a, double b, double tolerance) {
  const double scale = std::max({std::abs(a), std::abs(b), 1e-6});
  return std::abs(a - b) <= tolerance * scale;
}

constexpr char kWayOut[] =
    "micro-batches train something else than the whole mini-batch would. Say what the loss is a mean of with "
    "train.loss.model_output.mean_of (targets, count or sum; samples if this is meant), or set pipeline.chunks to 1";

}  // namespace

std::string JudgeLoss(const v1::LossChecked& losses) {
  const double mean = (losses.first() + losses.second()) / 2;
  if (!std::isfinite(losses.both())) return "";  // Training says so itself.
  if (!std::isfinite(mean)) {
    return absl::StrFormat(
        "the model's loss of the first mini-batch's first samples is %g, but that of one half of them alone is not a "
        "number (it has nothing to take the mean of): %s",
        losses.both(), kWayOut);
  }
  const bool half =
      IsHalfPrecision(losses.both()) && IsHalfPrecision(losses.first()) && IsHalfPrecision(losses.second());
  if (IsClose(losses.both(), mean, half ? kHalfPrecisionTolerance : kTolerance)) return "";
  return absl::StrFormat(
      "the model's loss of the first mini-batch's first samples is %g, but their two halves have %g and %g, whose mean "
      "is %g: it is no mean over samples, and %s",
      losses.both(), losses.first(), losses.second(), mean, kWayOut);
}

}  // namespace gpipe::orchestrator
