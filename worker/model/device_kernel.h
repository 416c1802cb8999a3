#ifndef GPIPE_WORKER_MODEL_DEVICE_KERNEL_H_
#define GPIPE_WORKER_MODEL_DEVICE_KERNEL_H_

#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace gpipe::worker {

// A CUDA kernel for what LibTorch has several operators for, each of which reads and writes memory. It is compiled by
// NVRTC for the device on which it is first asked for, in a tenth of a second. Any thread may use it.
class DeviceKernel {
 public:
  // What it is compiled for.
  struct Variant {
    c10::DeviceIndex device = 0;
    c10::ScalarType type = c10::kFloat;  // kFloat, kHalf or kBFloat16.
    int width = 1;                       // Elements that a thread reads at once, side by side.

    friend auto operator<=>(const Variant&, const Variant&) = default;
  };

  // `source` is CUDA C++ of an extern "C" function of this name. Before it stand `Bits`, an element as it lies in
  // memory, `float Load(Bits)` and `Bits Store(float)`, which rounds to nearest even, and `Pack`, whose array `bits`
  // has WIDTH of them and which is read at once.
  DeviceKernel(const char* name, const char* source) : name_(name), source_(source) {}

  // Whether it can be launched. If not, the worker's log has said why, and operators do the same.
  bool Has(const Variant& variant) ABSL_LOCKS_EXCLUDED(mutex_) { return Find(variant) != nullptr; }

  // Whether NVRTC takes the source for devices of a compute capability, 90 for 9.0. Needs no GPU.
  absl::Status CheckSource(int capability, c10::ScalarType type, int width) const;

  // Enqueues it on the current stream, in so many blocks of so many threads. `arguments` are as for cudaLaunchKernel.
  // Throws what CUDA says. REQUIRES: Has(variant).
  struct Grid {
    int64_t blocks = 1;
    int threads = 1;
  };
  void Launch(const Variant& variant, const Grid& grid, void** arguments) ABSL_LOCKS_EXCLUDED(mutex_);

  // For at least so many threads that have nothing to do with each other; more than none.
  static Grid GridOf(int64_t threads);

 private:
  // Null: there is none.
  cudaKernel_t Find(const Variant& variant) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<cudaKernel_t> Compile(const Variant& variant) const;
  absl::StatusOr<std::vector<char>> CodeFor(int capability, c10::ScalarType type, int width) const;

  const char* const name_;
  const char* const source_;
  absl::Mutex mutex_;
  std::map<Variant, cudaKernel_t> kernels_ ABSL_GUARDED_BY(mutex_);  // For as long as the process lives.
};

// Whether the tensor is of a type that kernels are written for, on a GPU.
bool IsForDeviceKernel(const at::Tensor& tensor);

// How far apart the rows are that the last dimension has, in their order; nullopt where they are not evenly, or their
// elements not side by side.
std::optional<int64_t> RowStride(const at::Tensor& tensor);

// How many elements of the tensor a thread can read at once where rows of `row` of them lie side by side, from where it
// begins and at each stride: those of 16 bytes, or one.
int WidthOf(const at::Tensor& tensor, int64_t row);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_DEVICE_KERNEL_H_
