#ifndef GPIPE_COMMON_DATA_NPY_H_
#define GPIPE_COMMON_DATA_NPY_H_

#include <filesystem>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/safetensors/header.h"

namespace gpipe::data {

// What the header of a NumPy `.npy` file says, and where its array lies. NOT_FOUND: no such file. INVALID_ARGUMENT: not
// a good one, a type that tensors of a job cannot have, columns first, or another byte order.
absl::StatusOr<safetensors::TensorInfo> ReadNpyHeader(const std::filesystem::path& path);

// The same on bytes: `prefix` is the beginning of a file of `file_size` bytes, with the whole header.
absl::StatusOr<safetensors::TensorInfo> ParseNpyHeader(std::string_view prefix, uint64_t file_size);

}  // namespace gpipe::data

#endif  // GPIPE_COMMON_DATA_NPY_H_
