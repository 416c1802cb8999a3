#ifndef GPIPE_WORKER_MODEL_MEMORY_METER_H_
#define GPIPE_WORKER_MODEL_MEMORY_METER_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace gpipe::worker {

// Counts the bytes that the calling thread's work between construction and Allocated() has allocated on a device and
// not yet freed, as the device's allocator counts them: the CPU allocator's reports, or the CUDA caching allocator's
// statistics. What was allocated before must not be freed meanwhile: the CPU allocator does not know its size. It has
// one listener a thread, so nothing is counted on a CPU while LibTorch's profiler is that listener.
class MemoryMeter {
 public:
  explicit MemoryMeter(c10::Device device);

  int64_t Allocated() const;

  // The highest value of Allocated() since ResetPeak() was called last. On CUDA that is the device's, as DevicePeak is.
  int64_t Peak() const;
  void ResetPeak();

 private:
  struct Reporter;
  static bool IsProfiled();

  const c10::Device device_;
  std::shared_ptr<Reporter> reporter_;          // CPU only.
  std::unique_ptr<c10::DebugInfoGuard> guard_;  // CPU only.
  int64_t before_ = 0;                          // CUDA only.
};

// The most that the process has used of a GPU since the last ResetDevicePeak, by the CUDA caching allocator's
// statistics; zeroes on a CPU. Any thread.
struct DevicePeak {
  int64_t allocated_bytes = 0;  // Of tensors.
  int64_t reserved_bytes = 0;   // Of the device, to have them in, CUDA graphs' pools included.
};
DevicePeak DevicePeakOf(c10::Device device);
void ResetDevicePeak(c10::Device device);

// Bytes of tensors, and of those that nothing else holds: what goes when they go.
int64_t TotalBytes(const std::vector<at::Tensor>& tensors);
int64_t OwnBytes(const std::vector<at::Tensor>& tensors);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_MEMORY_METER_H_
