#include "worker/checkpoint/ranged_file.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {
namespace {

constexpr uint64_t kLengthBytes = 8;  // Before the header.

}  // namespace

absl::StatusOr<std::string> ReadStart(const RangedFile& file, uint64_t size) {
  std::string bytes(std::min(size, file.size), '\0');
  GPIPE_RETURN_IF_ERROR(file.read(0, absl::MakeSpan(bytes)));
  return bytes;
}

absl::StatusOr<safetensors::Header> ReadHeaderOf(const RangedFile& file) {
  GPIPE_ASSIGN_OR_RETURN(const std::string start, ReadStart(file, kLengthBytes));
  GPIPE_ASSIGN_OR_RETURN(const uint64_t size, safetensors::HeaderBytes(start, file.size));
  GPIPE_ASSIGN_OR_RETURN(const std::string header, ReadStart(file, size));
  return safetensors::ParseHeader(header, file.size);
}

absl::Status LoadRanges(const RangedFile& file, const std::string& path, std::vector<Wanted> tensors,
                        TensorLoader& loader) {
  std::ranges::sort(tensors, {}, [](const Wanted& wanted) { return wanted.stored.begin; });
  for (const Wanted& wanted : tensors) {
    const auto from_tensor = [&](uint64_t offset, absl::Span<char> data) {
      return file.read(wanted.stored.begin + offset, data);
    };
    const absl::Status filled = loader.Fill(wanted.live->tensor, ToScalarType(wanted.stored.dtype), from_tensor);
    if (filled.ok()) continue;
    return absl::Status(filled.code(), absl::StrCat(path, ": ", wanted.live->name, ": ", filled.message()));
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
