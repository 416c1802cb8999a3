#include "worker/model/memory_meter.h"

#include <ATen/Context.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace gpipe::worker {
namespace {

int64_t BytesInUse(c10::Device device) {
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].current;
}

}  // namespace

// Called on the thread that allocates; a backward pass on CPU runs on the thread that starts it.
struct MemoryMeter::Reporter : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void* ptr, int64_t size, size_t allocated, size_t reserved, c10::Device device) override {
    if (device.is_cpu()) bytes += size;  // Negative when freed.
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t bytes = 0;
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
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
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

}  // namespace gpipe::worker
