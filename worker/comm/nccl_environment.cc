#include "worker/comm/nccl_environment.h"

#include <arpa/inet.h>
#include <cuda_runtime_api.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"
#include "worker/comm/nccl_status.h"
#include "worker/comm/process_claim.h"

namespace gpipe::worker {
namespace {

constexpr int kKeep = 0;  // For setenv: a variable that is set stays.

// What they say NCCL would put in the place of what NcclComm asks for.
constexpr const char* kOverridesOfConfig[] = {"NCCL_COMM_BLOCKING", "NCCL_COMM_SPLIT_SHARE_RESOURCES"};

bool SameAddress(const sockaddr* one, const sockaddr* other) {
  if (one == nullptr || one->sa_family != other->sa_family) return false;
  if (one->sa_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(one)->sin_addr.s_addr ==
           reinterpret_cast<const sockaddr_in*>(other)->sin_addr.s_addr;
  }
  return one->sa_family == AF_INET6 &&
         std::memcmp(&reinterpret_cast<const sockaddr_in6*>(one)->sin6_addr,
                     &reinterpret_cast<const sockaddr_in6*>(other)->sin6_addr, sizeof(in6_addr)) == 0;
}

std::optional<std::string> InterfaceOf(const sockaddr* address) {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return std::nullopt;
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> all(first, freeifaddrs);
  for (const ifaddrs* entry = first; entry != nullptr; entry = entry->ifa_next) {
    if (SameAddress(entry->ifa_addr, address)) return entry->ifa_name;
  }
  return std::nullopt;
}

// The network interface that has `host`, a name or address; nullopt when none has.
std::optional<std::string> InterfaceOfHost(const std::string& host) {
  addrinfo* first = nullptr;
  if (host.empty() || getaddrinfo(host.c_str(), nullptr, nullptr, &first) != 0) return std::nullopt;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(first, freeaddrinfo);
  for (const addrinfo* entry = first; entry != nullptr; entry = entry->ai_next) {
    if (std::optional<std::string> name = InterfaceOf(entry->ai_addr)) return name;
  }
  return std::nullopt;
}

// Random, because processes of two containers can have the same number.
std::string UniqueHostId() {
  std::random_device random;
  return absl::StrCat("gpipe-", getpid(), "-", random(), random());
}

void IgnoreOverrides() {
  for (const char* name : kOverridesOfConfig) {
    if (getenv(name) == nullptr) continue;
    spdlog::warn("{} is ignored: transfers depend on it", name);
    unsetenv(name);
  }
}

bool IsFirstOnGpu(int device) {
  const absl::StatusOr<std::string> identity = GpuIdentity(device);
  return !identity.ok() || ClaimForProcess(absl::StrCat("gpipe-nccl-", *identity));
}

}  // namespace

absl::StatusOr<std::string> GpuIdentity(int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return CudaStatus(error, absl::StrCat("looking at device ", device));
  return absl::BytesToHexString(std::string(properties.uuid.bytes, sizeof(properties.uuid.bytes)));
}

bool NcclUsesAddress(const std::string& data_address) {
  const char* set = getenv("NCCL_SOCKET_IFNAME");
  const std::optional<std::string> interface = InterfaceOfHost(data_address);
  return interface.has_value() && (set == nullptr || absl::StrCat("=", *interface) == set);
}

void PrepareNcclEnvironment(int device, bool shares_gpu, const std::string& data_address) {
  static const bool is_first = IsFirstOnGpu(device);  // A process has one GPU, and NCCL reads what follows once.
  IgnoreOverrides();
  if (shares_gpu || !is_first) {
    spdlog::warn("another worker uses the same GPU: tensors between workers go over sockets, which is for tests only");
    setenv("NCCL_HOSTID", UniqueHostId().c_str(), kKeep);
  }
  if (const std::optional<std::string> interface = InterfaceOfHost(data_address)) {
    setenv("NCCL_SOCKET_IFNAME", absl::StrCat("=", *interface).c_str(), kKeep);
  }
}

}  // namespace gpipe::worker
