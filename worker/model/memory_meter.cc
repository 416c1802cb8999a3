#include "worker/model/memory_meter.h"

#include <ATen/Context.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>

namespace gpipe::worker {
namespace {

constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

c10::CachingDeviceAllocator::DeviceStats StatsOf(c10::Device device) {
  return c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
}

int64_t BytesInUse(c10::Device device) { return StatsOf(device).allocated_bytes[kAll].current; }

}  // namespace

// Called on the thread that allocates; a backward pass on CPU runs on the thread that starts it.
struct MemoryMeter::Reporter : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void* ptr, int64_t size, size_t allocated, size_t reserved, c10::Device device) override {
    if (device.is_cpu()) bytes += size;  // Negative when freed.
    peak = std::max(peak, bytes);
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t bytes = 0;
  int64_t peak = 0;
};

MemoryMeter::MemoryMeter(c10::Device device) : device_(device) {
  if (device_.is_cuda()) {
    before_ = BytesInUse(device_);
  } else if (!IsProfiled()) {
    reporter_ = std::make_shared<Reporter>();
    guard_ = std::make_unique<c10::DebugInfoGuard>(c10::DebugInfoKind::PROFILER_STATE, reporter_);
  }
}

bool MemoryMeter::IsProfiled() {
  const c10::DebugInfoBase* listener = c10::ThreadLocalDebugInfo::get(c10::DebugInfoKind::PROFILER_STATE);
  return listener != nullptr && dynamic_cast<const Reporter*>(listener) == nullptr;
}

DevicePeak DevicePeakOf(c10::Device device) {
  if (!device.is_cuda()) return {};
  const auto stats = StatsOf(device);
  return {stats.allocated_bytes[kAll].peak, stats.reserved_bytes[kAll].peak};
}

// An allocator that has not been used yet knows no devices.
void ResetDevicePeak(c10::Device device) {
  if (!device.is_cuda()) return;
  at::globalContext().lazyInitDevice(c10::kCUDA);
  c10::getDeviceAllocator(device.type())->resetPeakStats(device.index());
}

int64_t MemoryMeter::Allocated() const {
  if (device_.is_cuda()) return BytesInUse(device_) - before_;
  return reporter_ == nullptr ? 0 : reporter_->bytes;
}

int64_t MemoryMeter::Peak() const {
  if (device_.is_cuda()) return StatsOf(device_).allocated_bytes[kAll].peak - before_;
  return reporter_ == nullptr ? 0 : reporter_->peak;
}

void MemoryMeter::ResetPeak() {
  if (device_.is_cuda()) ResetDevicePeak(device_);
  if (reporter_ != nullptr) reporter_->peak = reporter_->bytes;
}

int64_t TotalBytes(const std::vector<at::Tensor>& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

int64_t OwnBytes(const std::vector<at::Tensor>& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.storage().use_count() == 1) bytes += static_cast<int64_t>(tensor.storage().nbytes());
  }
  return bytes;
}

}  // namespace gpipe::worker
