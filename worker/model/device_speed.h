#ifndef GPIPE_WORKER_MODEL_DEVICE_SPEED_H_
#define GPIPE_WORKER_MODEL_DEVICE_SPEED_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <map>

namespace gpipe::worker {

// What one forward of a layer has to do, as far as that is known without running it.
struct LayerWork {
  double flops = 0;                    // Of matrix products and convolutions; a multiplication and an addition are two.
  double bytes = 0;                    // Read and written.
  double made_bytes = 0;               // Of what its operators make.
  c10::ScalarType type = c10::kFloat;  // What it computes in.
};

// How fast a device multiplies matrices and moves memory: measured once for each type, in a fraction of a second. From
// that follows how long a layer takes whose measurement would take too long. Used by one thread.
class DeviceSpeed {
 public:
  explicit DeviceSpeed(c10::Device device) : device_(device) {}

  // Of one forward. Throws what LibTorch throws.
  double SecondsFor(const LayerWork& work);

 private:
  struct Speed {
    double flops_per_second = 0;
    double bytes_per_second = 0;
  };

  const Speed& Of(c10::ScalarType type);

  const c10::Device device_;
  std::map<c10::ScalarType, Speed> known_;
};

// Waits until the device has done what was asked of it.
void SynchronizeDevice(c10::Device device);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_DEVICE_SPEED_H_
