#include "worker/software.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>
#include <torch/version.h>

#include <cstdlib>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

namespace fs = std::filesystem;

// One of the parts that cuDNN loads by name.
constexpr char kCudnnPart[] = "libcudnn_graph.so.9";
// LibTorch prefers the attention of newer ones than this, on GPUs of 9.0 and 10.0 (H100, H200, B200).
constexpr int64_t kCudnnOfSlowAttention = 91500;

// 0: not known, which LibTorch says by throwing.
int64_t CudnnVersion(long (at::CUDAHooksInterface::*version)() const) {
  const absl::StatusOr<int64_t> found =
      CatchTorch([version]() -> absl::StatusOr<int64_t> { return (at::detail::getCUDAHooks().*version)(); });
  return found.value_or(0);
}

int64_t LoadedCudnn() { return CudnnVersion(&at::CUDAHooksInterface::versionRuntimeCuDNN); }

fs::path FolderOfCudnn() {
  Dl_info info = {};
  const void* function = dlsym(RTLD_DEFAULT, "cudnnGetVersion");
  if (function == nullptr || dladdr(function, &info) == 0 || info.dli_fname == nullptr) return {};
  return fs::path(info.dli_fname).parent_path();
}

bool IsFasterWithNewCudnn(int compute_capability) { return compute_capability == 90 || compute_capability == 100; }

}  // namespace

std::string CudaVersionText(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

std::string LibraryVersionText(int64_t version) {
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

std::map<std::string, std::string> SoftwareOf(const std::string& device, const std::string& driver_version) {
  std::map<std::string, std::string> software = {{"torch", TORCH_VERSION}};
  if (device == "cpu") return software;
  if (!driver_version.empty()) software["driver"] = driver_version;
  if (int version = 0; cudaRuntimeGetVersion(&version) == cudaSuccess) software["cuda"] = CudaVersionText(version);
  if (const int64_t version = LoadedCudnn(); version > 0) software["cudnn"] = LibraryVersionText(version);
  if (int version = 0; ncclGetVersion(&version) == ncclSuccess) software["nccl"] = LibraryVersionText(version);
  return software;
}

fs::path ShadowOfCudnn(const std::string& search_path, const fs::path& folder) {
  std::error_code error;
  const std::vector<std::string> entries = absl::StrSplit(search_path, absl::ByAnyChar(":;"));
  for (const std::string& entry : entries) {
    const fs::path candidate = entry.empty() ? "." : entry;  // As the dynamic linker takes it.
    if (!fs::exists(candidate / kCudnnPart, error)) continue;
    return fs::equivalent(candidate, folder, error) ? fs::path() : candidate;
  }
  return {};
}

CudnnFacts LookAtCudnn(int compute_capability) {
  const char* search_path = std::getenv("LD_LIBRARY_PATH");
  CudnnFacts facts;
  facts.loaded = LoadedCudnn();
  facts.built_with = CudnnVersion(&at::CUDAHooksInterface::versionCuDNN);
  facts.compute_capability = compute_capability;
  facts.folder = FolderOfCudnn();
  if (search_path != nullptr && *search_path != '\0') facts.shadow = ShadowOfCudnn(search_path, facts.folder);
  return facts;
}

std::string CudnnProblem(const CudnnFacts& facts) {
  const bool is_old = facts.loaded < facts.built_with;
  if (facts.loaded == 0 || (!is_old && facts.shadow.empty())) return "";
  const bool is_slow = facts.loaded <= kCudnnOfSlowAttention && IsFasterWithNewCudnn(facts.compute_capability);
  return absl::StrCat(
      "cuDNN ", LibraryVersionText(facts.loaded), " was loaded from ", facts.folder.string(),
      is_old ? absl::StrCat(", and LibTorch was built with ", LibraryVersionText(facts.built_with)) : "",
      facts.shadow.empty() ? ""
                           : absl::StrCat(", but LD_LIBRARY_PATH has it load its parts from ", facts.shadow.string()),
      is_slow ? ": attention takes up to twice as long" : ": what it computes may be slow, or fail",
      "; leave the other cuDNN out of LD_LIBRARY_PATH, or start the worker by its archive's bin/gpipe-worker");
}

}  // namespace gpipe::worker
