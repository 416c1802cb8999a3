#ifndef GPIPE_COMMON_SAFETENSORS_MERGE_H_
#define GPIPE_COMMON_SAFETENSORS_MERGE_H_

#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace gpipe::safetensors {

// Takes the next bytes of a file, which stay as they are until the call after this one has returned. The last call,
// after a failure too, has none.
using TakeBytes = std::function<absl::Status(std::string_view bytes)>;

// Hands out one file with all tensors of `parts`, by name; of no parts one without tensors. INVALID_ARGUMENT, before
// anything is handed out, when two parts hold the same name; NOT_FOUND names a part.
absl::Status Merge(const std::vector<std::filesystem::path>& parts, const TakeBytes& take);

}  // namespace gpipe::safetensors

#endif  // GPIPE_COMMON_SAFETENSORS_MERGE_H_
