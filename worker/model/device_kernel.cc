#include "worker/model/device_kernel.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <nvrtc.h>

#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"
#include "worker/model/graph_pool.h"

namespace gpipe::worker {
namespace {

constexpr int kThreads = 128;       // A block: small ones go to more multiprocessors.
constexpr int64_t kReadBytes = 16;  // The most that a thread reads at once.

constexpr char kFloatElement[] = R"cuda(
typedef float Bits;
__device__ inline float Load(Bits bits) { return bits; }
__device__ inline Bits Store(float value) { return value; }
)cuda";

constexpr char kHalfElement[] = R"cuda(
typedef unsigned short Bits;
__device__ inline float Load(Bits bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ inline Bits Store(float value) {
  Bits bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
)cuda";

// The upper half of a float. Half of what is cut off is added, and to an odd number one more; a NaN stays one.
constexpr char kBFloat16Element[] = R"cuda(
typedef unsigned short Bits;
__device__ inline float Load(Bits bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ inline Bits Store(float value) {
  const unsigned bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (Bits)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
)cuda";

constexpr char kPack[] = R"cuda(
struct alignas(sizeof(Bits) * WIDTH) Pack {
  Bits bits[WIDTH];
};
)cuda";

const char* ElementOf(c10::ScalarType type) {
  if (type == c10::kHalf) return kHalfElement;
  return type == c10::kBFloat16 ? kBFloat16Element : kFloatElement;
}

absl::Status NvrtcStatus(nvrtcResult result, const char* doing) {
  if (result == NVRTC_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(doing, ": ", nvrtcGetErrorString(result)));
}

// CUDA's last error is forgotten: the operators that run instead would take it for theirs.
absl::Status RuntimeStatus(cudaError_t result, const char* doing) {
  if (result == cudaSuccess) return absl::OkStatus();
  ForgetCudaError(doing);
  return absl::InternalError(absl::StrCat(doing, ": ", cudaGetErrorString(result)));
}

// While the thread records a graph CUDA refuses to load code, which the graph would not notice.
class RelaxedCapture {
 public:
  RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // Then that from before.
};

std::string LogOf(nvrtcProgram program) {
  size_t size = 0;
  if (nvrtcGetProgramLogSize(program, &size) != NVRTC_SUCCESS) return "";
  std::string log(size, '\0');
  return nvrtcGetProgramLog(program, log.data()) == NVRTC_SUCCESS ? std::string(log.c_str()) : "";
}

// Code for devices of that compute capability: 90 is 9.0.
absl::StatusOr<std::vector<char>> CodeOf(const std::string& source, const char* name, int capability, int width) {
  nvrtcProgram program = nullptr;
  GPIPE_RETURN_IF_ERROR(
      NvrtcStatus(nvrtcCreateProgram(&program, source.c_str(), name, 0, nullptr, nullptr), "beginning"));
  const absl::Cleanup destroy = [&program] { nvrtcDestroyProgram(&program); };
  const std::string architecture = absl::StrCat("--gpu-architecture=sm_", capability);
  const std::string define = absl::StrCat("-DWIDTH=", width);
  const char* const options[] = {architecture.c_str(), define.c_str(), "--std=c++17"};
  const absl::Status compiled = NvrtcStatus(nvrtcCompileProgram(program, std::size(options), options), "compiling");
  if (!compiled.ok()) return absl::InternalError(absl::StrCat(compiled.message(), ": ", LogOf(program)));
  size_t size = 0;
  GPIPE_RETURN_IF_ERROR(NvrtcStatus(nvrtcGetCUBINSize(program, &size), "taking the code"));
  std::vector<char> code(size);
  GPIPE_RETURN_IF_ERROR(NvrtcStatus(nvrtcGetCUBIN(program, code.data()), "taking the code"));
  return code;
}

}  // namespace

absl::StatusOr<std::vector<char>> DeviceKernel::CodeFor(int capability, c10::ScalarType type, int width) const {
  return CodeOf(absl::StrCat(ElementOf(type), kPack, source_), name_, capability, width);
}

absl::Status DeviceKernel::CheckSource(int capability, c10::ScalarType type, int width) const {
  return CodeFor(capability, type, width).status();
}

absl::StatusOr<cudaKernel_t> DeviceKernel::Compile(const Variant& variant) const {
  const c10::cuda::CUDAGuard guard(variant.device);
  const RelaxedCapture allowed;
  int major = 0, minor = 0;
  GPIPE_RETURN_IF_ERROR(RuntimeStatus(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, variant.device),
                                      "asking for the capability"));
  GPIPE_RETURN_IF_ERROR(RuntimeStatus(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, variant.device),
                                      "asking for the capability"));
  GPIPE_ASSIGN_OR_RETURN(const std::vector<char> code, CodeFor(10 * major + minor, variant.type, variant.width));
  cudaLibrary_t library = nullptr;
  cudaKernel_t kernel = nullptr;
  GPIPE_RETURN_IF_ERROR(RuntimeStatus(
      cudaLibraryLoadData(&library, code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0), "loading the code"));
  GPIPE_RETURN_IF_ERROR(RuntimeStatus(cudaLibraryGetKernel(&kernel, library, name_), "finding the function"));
  return kernel;
}

cudaKernel_t DeviceKernel::Find(const Variant& variant) {
  absl::MutexLock lock(&mutex_);
  const auto known = kernels_.find(variant);
  if (known != kernels_.end()) return known->second;
  const absl::StatusOr<cudaKernel_t> compiled = Compile(variant);
  if (!compiled.ok()) {
    spdlog::warn("{} runs as single operators, as its kernel cannot be made: {}", name_,
                 StdView(compiled.status().message()));
  }
  return kernels_[variant] = compiled.ok() ? *compiled : nullptr;
}

DeviceKernel::Grid DeviceKernel::GridOf(int64_t threads) { return {(threads + kThreads - 1) / kThreads, kThreads}; }

void DeviceKernel::Launch(const Variant& variant, const Grid& grid, void** arguments) {
  const c10::cuda::CUDAGuard guard(variant.device);
  C10_CUDA_CHECK(cudaLaunchKernel(reinterpret_cast<const void*>(Find(variant)),
                                  dim3(static_cast<unsigned>(grid.blocks)), dim3(static_cast<unsigned>(grid.threads)),
                                  arguments, 0, c10::cuda::getCurrentCUDAStream(variant.device)));
}

bool IsForDeviceKernel(const at::Tensor& tensor) {
  const c10::ScalarType type = tensor.scalar_type();
  return tensor.is_cuda() && (type == c10::kFloat || type == c10::kHalf || type == c10::kBFloat16);
}

std::optional<int64_t> RowStride(const at::Tensor& tensor) {
  if (tensor.dim() == 0 || tensor.stride(-1) != 1) return std::nullopt;
  std::optional<int64_t> row;
  int64_t next = 0;  // How far apart those of the next dimension outwards have to be.
  for (int64_t dim = tensor.dim() - 2; dim >= 0; --dim) {
    if (tensor.size(dim) == 1) continue;
    if (row && tensor.stride(dim) != next) return std::nullopt;
    if (!row) row = tensor.stride(dim);
    next = tensor.stride(dim) * tensor.size(dim);
  }
  return row.value_or(tensor.size(-1));
}

int WidthOf(const at::Tensor& tensor, int64_t row) {
  const int64_t width = kReadBytes / static_cast<int64_t>(tensor.element_size());
  if (row % width != 0 || reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % kReadBytes != 0) return 1;
  for (int64_t dim = 0; dim + 1 < tensor.dim(); ++dim) {
    if (tensor.size(dim) > 1 && tensor.stride(dim) % width != 0) return 1;
  }
  return static_cast<int>(width);
}

}  // namespace gpipe::worker
