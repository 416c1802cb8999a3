#include "worker/model/device_speed.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "absl/functional/function_ref.h"
#include "absl/time/clock.h"

namespace gpipe::worker {
namespace {

// Large enough to show a device's speed in well under a second on a slow one.
constexpr int64_t kCpuRows = 512, kGpuRows = 4096;

// Of the second run: the first one loads kernels and touches memory.
double SecondsOf(c10::Device device, absl::FunctionRef<void()> run) {
  run();
  SynchronizeDevice(device);
  const absl::Time begin = absl::Now();
  run();
  SynchronizeDevice(device);
  return std::max(1e-9, absl::ToDoubleSeconds(absl::Now() - begin));
}

}  // namespace

void SynchronizeDevice(c10::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

double DeviceSpeed::SecondsFor(const LayerWork& work) {
  const Speed& speed = Of(work.type);
  return work.flops / speed.flops_per_second + work.bytes / speed.bytes_per_second;
}

const DeviceSpeed::Speed& DeviceSpeed::Of(c10::ScalarType type) {
  const auto [found, is_new] = known_.try_emplace(type);
  if (!is_new) return found->second;
  const at::NoGradGuard no_gradients;
  const int64_t rows = device_.is_cpu() ? kCpuRows : kGpuRows;
  const at::Tensor matrix = at::full({rows, rows}, 0.01, at::device(device_).dtype(type));
  at::Tensor product = at::empty_like(matrix);
  const double product_seconds = SecondsOf(device_, [&] { at::mm_out(product, matrix, matrix); });
  const at::Tensor memory = at::zeros({32 * rows, rows}, at::device(device_).dtype(type));  // More than a cache holds.
  at::Tensor copy = at::empty_like(memory);
  const double copy_seconds = SecondsOf(device_, [&] { copy.copy_(memory); });
  const double operations = 2.0 * static_cast<double>(rows) * static_cast<double>(rows) * static_cast<double>(rows);
  return found->second = {operations / product_seconds, 2.0 * static_cast<double>(memory.nbytes()) / copy_seconds};
}

}  // namespace gpipe::worker
