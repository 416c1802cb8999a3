#ifndef GPIPE_COMMON_SAFETENSORS_HEADER_H_
#define GPIPE_COMMON_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::safetensors {

struct TensorInfo {
  // Unspecified: a type that nothing here reads (`F4`, `F8_E8M0`); the file is good all the same.
  v1::DataType dtype = v1::DATA_TYPE_UNSPECIFIED;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // Bytes from the start of the file, not of the data section.
  uint64_t end = 0;
  std::string dtype_name = {};  // As the file has it; empty in a header that is yet to be written.
};

// The header of a safetensors file (8 bytes length, JSON, then the data): which tensor lies where.
struct Header {
  std::map<std::string, TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

// Bytes per element; 0 for an unspecified type.
int64_t ElementSize(v1::DataType dtype);
// `F32`, `I64`, ... as in the file, and back (DATA_TYPE_UNSPECIFIED when unknown).
std::string_view DtypeName(v1::DataType dtype);
v1::DataType DtypeFromName(std::string_view name);
// Whether the format has the type: all but complex128.
bool IsInFiles(v1::DataType dtype);
// Whether a tensor of type `from` may be loaded into one of type `to`: floating types into each other, complex ones
// too, others as themselves.
bool IsConvertible(v1::DataType from, v1::DataType to);

// Reads and checks everything: the length against the file's size and a limit of 100 MB, the JSON, types, shapes
// against byte ranges (of types that are known), that ranges neither overlap nor leave gaps nor end beyond the file. No
// byte of the data is read.
// NOT_FOUND: no such file. INVALID_ARGUMENT: not a good safetensors file, and why.
absl::StatusOr<Header> ReadHeader(const std::filesystem::path& path);

// The same on bytes: `prefix` holds at least the length and the JSON; file_size is that of the whole file.
absl::StatusOr<Header> ParseHeader(std::string_view prefix, uint64_t file_size);

// Length and JSON of a file's header, which begins the file; `start` is its first 8 bytes, or the whole of a file that
// has fewer. INVALID_ARGUMENT: the file is shorter, or the header too long.
absl::StatusOr<uint64_t> HeaderBytes(std::string_view start, uint64_t file_size);

// Length and JSON for tensors in the given order, data packed in that order; fills in begin and end.
std::string BuildHeader(std::vector<std::pair<std::string, TensorInfo>>& tensors,
                        const std::map<std::string, std::string>& metadata = {});

}  // namespace gpipe::safetensors

#endif  // GPIPE_COMMON_SAFETENSORS_HEADER_H_
