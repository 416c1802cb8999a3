// Any bytes: the header parser must end with a status. Of a file it accepts, every tensor lies inside the file, with
// the size that its shape asks for if its type is known, and the header written back from those that are says the same.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/safetensors/header.h"

namespace {

namespace safetensors = gpipe::safetensors;

void Require(bool holds) {
  if (!holds) std::abort();
}

// A file may have tensors of types that nobody here can read.
bool IsKnown(const safetensors::TensorInfo& info) { return info.dtype != gpipe::v1::DATA_TYPE_UNSPECIFIED; }

void CheckTensor(const safetensors::TensorInfo& info, size_t file_size) {
  Require(info.begin <= info.end && info.end <= file_size);
  if (!IsKnown(info)) return;
  uint64_t bytes = static_cast<uint64_t>(safetensors::ElementSize(info.dtype));
  for (const int64_t size : info.shape) {
    Require(size >= 0);
    bytes *= static_cast<uint64_t>(size);
  }
  Require(info.end - info.begin == bytes);
}

void CheckRoundTrip(const safetensors::Header& header) {
  std::vector<std::pair<std::string, safetensors::TensorInfo>> tensors;
  for (const auto& [name, info] : header.tensors) {
    if (IsKnown(info)) tensors.emplace_back(name, info);
  }
  const std::string written = safetensors::BuildHeader(tensors, header.metadata);
  const uint64_t end = tensors.empty() ? written.size() : tensors.back().second.end;
  const auto again = safetensors::ParseHeader(written, end);
  Require(again.ok() && again->metadata == header.metadata && again->tensors.size() == tensors.size());
  for (const auto& [name, info] : tensors) {
    const auto found = again->tensors.find(name);
    Require(found != again->tensors.end() && found->second.dtype == info.dtype && found->second.shape == info.shape);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto header = safetensors::ParseHeader(bytes, size);
  if (!header.ok()) return 0;
  for (const auto& [name, info] : header->tensors) CheckTensor(info, size);
  CheckRoundTrip(*header);
  return 0;
}
