#ifndef GPIPE_WORKER_SOFTWARE_H_
#define GPIPE_WORKER_SOFTWARE_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace gpipe::worker {

// NVIDIA's numbers of versions as people write them.
std::string CudaVersionText(int version);         // 13000 -> `13.0`
std::string LibraryVersionText(int64_t version);  // cuDNN's and NCCL's: 91900 -> `9.19.0`

// Versions of what a worker computes with, for Hello.software: `torch`, and on a GPU `driver` (where it is known),
// `cuda`, `cudnn` and `nccl`, all as they are loaded.
std::map<std::string, std::string> SoftwareOf(const std::string& device, const std::string& driver_version);

// The cuDNN of this process, and what else might get in its way.
struct CudnnFacts {
  int64_t loaded = 0;                 // As LibraryVersionText takes it; 0: not known.
  int64_t built_with = 0;             // What LibTorch was built with.
  int compute_capability = 0;         // Of the GPU: 90 is 9.0.
  std::filesystem::path folder = {};  // Where it was loaded from.
  std::filesystem::path shadow = {};  // See ShadowOfCudnn.
};

// cuDNN loads its parts when it needs them, first of all from the folders of LD_LIBRARY_PATH: the first one of
// `search_path` that has them. Empty when that is `folder` itself, or none has.
std::filesystem::path ShadowOfCudnn(const std::string& search_path, const std::filesystem::path& folder);

CudnnFacts LookAtCudnn(int compute_capability);

// What is wrong with them, for the log; empty: nothing. LibTorch does without cuDNN's attention when it finds an old
// one, and says nothing.
std::string CudnnProblem(const CudnnFacts& facts);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SOFTWARE_H_
