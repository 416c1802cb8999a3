#include "worker/device_info.h"

#include <cuda_runtime.h>

#include <fstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace gpipe::worker {
namespace {

// The value of the first line `key : value` of a file in /proc; empty without one.
std::string ProcValue(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (parts.size() == 2 && absl::StripAsciiWhitespace(parts[0]) == key) {
      return std::string(absl::StripAsciiWhitespace(parts[1]));
    }
  }
  return "";
}

DeviceInfo CpuInfo() {
  DeviceInfo info;
  info.name = ProcValue("/proc/cpuinfo", "model name");
  int64_t kilobytes = 0;
  const std::string total = ProcValue("/proc/meminfo", "MemTotal");  // `24576000 kB`
  if (absl::SimpleAtoi(absl::StripSuffix(total, " kB"), &kilobytes)) info.memory_bytes = kilobytes * 1024;
  return info;
}

std::string NamesOfGpus(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) == cudaSuccess) {
      names.push_back(absl::StrCat("cuda:", i, " (", properties.name, ")"));
    }
  }
  return absl::StrJoin(names, ", ");
}

absl::StatusOr<DeviceInfo> GpuInfo(const std::string& device) {
  int count = 0, index = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
    return absl::NotFoundError(
        absl::StrCat(device, ": this machine has no usable GPU (", cudaGetErrorString(error), ")"));
  }
  cudaDeviceProp properties;
  if (!absl::SimpleAtoi(absl::StripPrefix(device, "cuda:"), &index) || index < 0 || index >= count ||
      cudaGetDeviceProperties(&properties, index) != cudaSuccess) {
    return absl::NotFoundError(absl::StrCat(device, " is not there; this machine has ", NamesOfGpus(count)));
  }
  DeviceInfo info;
  info.name = properties.name;
  info.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  info.compute_capability = properties.major * 10 + properties.minor;
  return info;
}

}  // namespace

absl::StatusOr<DeviceInfo> GetDeviceInfo(const std::string& device) {
  if (device == "cpu") return CpuInfo();
  return GpuInfo(device);
}

}  // namespace gpipe::worker
