#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"

namespace gpipe::safetensors {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;

// Where a tensor of the output comes from.
struct Source {
  size_t part;
  TensorInfo range;
};

absl::Status CopyRange(std::ifstream& input, const TensorInfo& range, AtomicFile& output) {
  std::string buffer;
  input.seekg(static_cast<std::streamoff>(range.begin));
  for (uint64_t left = range.end - range.begin; left > 0; left -= buffer.size()) {
    buffer.resize(std::min(left, kPieceBytes));
    if (!input.read(buffer.data(), static_cast<std::streamsize>(buffer.size()))) {
      return absl::DataLossError("a part became shorter while it was read");
    }
    GPIPE_RETURN_IF_ERROR(output.Append(buffer));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Merge(const std::vector<std::filesystem::path>& parts, const std::filesystem::path& output) {
  std::map<std::string, Source> sources;
  std::vector<std::ifstream> inputs;
  for (size_t part = 0; part < parts.size(); ++part) {
    GPIPE_ASSIGN_OR_RETURN(const Header header, ReadHeader(parts[part]));
    for (const auto& [name, info] : header.tensors) {
      if (!sources.emplace(name, Source{part, info}).second) {
        return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is in two of the parts"));
      }
    }
    inputs.emplace_back(parts[part], std::ios::binary);
    if (!inputs.back()) return ErrnoStatus(errno, "cannot read", parts[part]);
  }
  std::vector<std::pair<std::string, TensorInfo>> tensors;
  for (const auto& [name, source] : sources) tensors.emplace_back(name, source.range);
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(output));
  GPIPE_RETURN_IF_ERROR(file.Append(BuildHeader(tensors)));
  for (const auto& [name, source] : sources) {
    GPIPE_RETURN_IF_ERROR(CopyRange(inputs[source.part], source.range, file));
  }
  return file.Commit();
}

}  // namespace gpipe::safetensors
