#include "common/safetensors/header.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/json_object.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "nlohmann/json.hpp"

namespace gpipe::safetensors {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
// The format needs three levels.
constexpr int kMaxJsonDepth = 8;

constexpr std::string_view kNoName = "complex128";  // Is in no file.

struct DtypeEntry {
  v1::DataType dtype;
  std::string_view name;
  int64_t size;
};

constexpr std::array<DtypeEntry, 17> kDtypes = {{
    {v1::DATA_TYPE_FLOAT32, "F32", 4},
    {v1::DATA_TYPE_FLOAT64, "F64", 8},
    {v1::DATA_TYPE_FLOAT16, "F16", 2},
    {v1::DATA_TYPE_BFLOAT16, "BF16", 2},
    {v1::DATA_TYPE_INT64, "I64", 8},
    {v1::DATA_TYPE_INT32, "I32", 4},
    {v1::DATA_TYPE_INT16, "I16", 2},
    {v1::DATA_TYPE_INT8, "I8", 1},
    {v1::DATA_TYPE_UINT8, "U8", 1},
    {v1::DATA_TYPE_BOOL, "BOOL", 1},
    {v1::DATA_TYPE_UINT16, "U16", 2},
    {v1::DATA_TYPE_UINT32, "U32", 4},
    {v1::DATA_TYPE_UINT64, "U64", 8},
    {v1::DATA_TYPE_FLOAT8_E4M3, "F8_E4M3", 1},
    {v1::DATA_TYPE_FLOAT8_E5M2, "F8_E5M2", 1},
    {v1::DATA_TYPE_COMPLEX64, "C64", 8},
    {v1::DATA_TYPE_COMPLEX128, kNoName, 16},
}};

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a good safetensors file: ", AbslView(what)));
}

absl::Status BadTensor(std::string_view name, std::string_view what) {
  return Bad(absl::StrCat("tensor '", AbslView(name), "' ", AbslView(what)));
}

uint64_t ReadLength(std::string_view bytes) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  return length;
}

absl::Status ParseShape(const std::string& name, const json& shape, TensorInfo& info) {
  if (!shape.is_array()) return BadTensor(name, "has no shape");
  for (const json& size : shape) {
    if (!size.is_number_unsigned()) return BadTensor(name, "has a size that is not a whole number");
    if (size.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return BadTensor(name, "has a size out of range");
    }
    info.shape.push_back(static_cast<int64_t>(size.get<uint64_t>()));
  }
  return absl::OkStatus();
}

bool IsFloating(v1::DataType dtype) {
  return dtype == v1::DATA_TYPE_FLOAT32 || dtype == v1::DATA_TYPE_FLOAT64 || dtype == v1::DATA_TYPE_FLOAT16 ||
         dtype == v1::DATA_TYPE_BFLOAT16 || dtype == v1::DATA_TYPE_FLOAT8_E4M3 || dtype == v1::DATA_TYPE_FLOAT8_E5M2;
}

bool IsComplex(v1::DataType dtype) { return dtype == v1::DATA_TYPE_COMPLEX64 || dtype == v1::DATA_TYPE_COMPLEX128; }

// Bytes the shape and type ask for; OUT_OF_RANGE when they do not fit 64 bits.
absl::StatusOr<uint64_t> ByteCount(const std::string& name, const TensorInfo& info) {
  uint64_t bytes = static_cast<uint64_t>(ElementSize(info.dtype));
  for (int64_t size : info.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) return BadTensor(name, "is too large");
  }
  return bytes;
}

absl::StatusOr<TensorInfo> ParseTensor(const std::string& name, const json& entry, uint64_t data_begin,
                                       uint64_t data_bytes) {
  TensorInfo info;
  if (!entry.is_object()) return BadTensor(name, "is not described by an object");
  const auto dtype = entry.find("dtype"), shape = entry.find("shape"), offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string()) return BadTensor(name, "has no dtype");
  info.dtype_name = dtype->get<std::string>();
  info.dtype = DtypeFromName(info.dtype_name);
  if (shape == entry.end()) return BadTensor(name, "has no shape");
  GPIPE_RETURN_IF_ERROR(ParseShape(name, *shape, info));
  const bool good = offsets != entry.end() && offsets->is_array() && offsets->size() == 2 &&
                    (*offsets)[0].is_number_unsigned() && (*offsets)[1].is_number_unsigned();
  if (!good) return BadTensor(name, "has no data_offsets of two whole numbers");
  const uint64_t begin = (*offsets)[0].get<uint64_t>(), end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data_bytes) return BadTensor(name, "lies beyond the end of the file");
  GPIPE_ASSIGN_OR_RETURN(const uint64_t bytes, ByteCount(name, info));
  if (bytes != end - begin && info.dtype != v1::DATA_TYPE_UNSPECIFIED) {
    return BadTensor(name, absl::StrCat("has ", end - begin, " bytes, but its shape needs ", bytes));
  }
  info.begin = data_begin + begin;
  info.end = data_begin + end;
  return info;
}

absl::Status ParseMetadata(const json& entry, Header& header) {
  if (!entry.is_object()) return Bad("__metadata__ is not an object");
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) return Bad("__metadata__ has a value that is not a string");
    header.metadata[key] = value.get<std::string>();
  }
  return absl::OkStatus();
}

// In order of place the tensors must cover the data section exactly.
absl::Status CheckRanges(const Header& header, uint64_t data_begin, uint64_t file_size) {
  std::vector<std::pair<const std::string*, const TensorInfo*>> order;
  for (const auto& [name, info] : header.tensors) order.emplace_back(&name, &info);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  uint64_t expected = data_begin;
  for (const auto& [name, info] : order) {
    if (info->begin < expected) return BadTensor(*name, "overlaps another one");
    if (info->begin > expected) return BadTensor(*name, "leaves a gap before it");
    expected = info->end;
  }
  if (expected != file_size) return Bad(absl::StrCat(file_size - expected, " bytes at the end belong to no tensor"));
  return absl::OkStatus();
}

absl::Status CheckLength(uint64_t length, uint64_t file_size) {
  if (length > kMaxHeaderBytes) return Bad(absl::StrCat("a header of ", length, " bytes is over the limit of 100 MB"));
  if (length > file_size - kLengthBytes) return Bad("the header is cut off");
  return absl::OkStatus();
}

std::string EncodeLength(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  return bytes;
}

}  // namespace

int64_t ElementSize(v1::DataType dtype) {
  for (const DtypeEntry& entry : kDtypes) {
    if (entry.dtype == dtype) return entry.size;
  }
  return 0;
}

std::string_view DtypeName(v1::DataType dtype) {
  for (const DtypeEntry& entry : kDtypes) {
    if (entry.dtype == dtype) return entry.name;
  }
  return "unspecified";
}

bool IsInFiles(v1::DataType dtype) { return dtype != v1::DATA_TYPE_UNSPECIFIED && dtype != v1::DATA_TYPE_COMPLEX128; }

v1::DataType DtypeFromName(std::string_view name) {
  for (const DtypeEntry& entry : kDtypes) {
    if (entry.name == name && IsInFiles(entry.dtype)) return entry.dtype;
  }
  return v1::DATA_TYPE_UNSPECIFIED;
}

bool IsConvertible(v1::DataType from, v1::DataType to) {
  return (from == to && from != v1::DATA_TYPE_UNSPECIFIED) || (IsFloating(from) && IsFloating(to)) ||
         (IsComplex(from) && IsComplex(to));
}

absl::StatusOr<uint64_t> HeaderBytes(std::string_view start, uint64_t file_size) {
  if (start.size() < kLengthBytes || file_size < kLengthBytes) return Bad("it is shorter than 8 bytes");
  const uint64_t length = ReadLength(start);
  GPIPE_RETURN_IF_ERROR(CheckLength(length, file_size));
  return kLengthBytes + length;
}

absl::StatusOr<Header> ParseHeader(std::string_view prefix, uint64_t file_size) {
  GPIPE_ASSIGN_OR_RETURN(const uint64_t data_begin, HeaderBytes(prefix, file_size));
  if (prefix.size() < data_begin) return Bad("the header is cut off");
  const absl::StatusOr<json> parsed =
      ParseJsonObject(prefix.substr(kLengthBytes, data_begin - kLengthBytes), kMaxJsonDepth);
  if (!parsed.ok()) return Bad(absl::StrCat("the header ", parsed.status().message()));

  Header header;
  for (const auto& [name, entry] : parsed->items()) {
    if (name == "__metadata__") {
      GPIPE_RETURN_IF_ERROR(ParseMetadata(entry, header));
      continue;
    }
    GPIPE_ASSIGN_OR_RETURN(header.tensors[name], ParseTensor(name, entry, data_begin, file_size - data_begin));
  }
  GPIPE_RETURN_IF_ERROR(CheckRanges(header, data_begin, file_size));
  return header;
}

absl::StatusOr<Header> ReadHeader(const std::filesystem::path& path) {
  std::error_code error;
  const uint64_t file_size = std::filesystem::file_size(path, error);
  if (error) return ErrnoStatus(error.value(), "cannot read", path);
  std::ifstream file(path, std::ios::binary);
  if (!file) return ErrnoStatus(errno, "cannot read", path);
  std::string prefix(std::min(kLengthBytes, file_size), '\0');
  file.read(prefix.data(), static_cast<std::streamsize>(prefix.size()));
  if (prefix.size() == kLengthBytes) {
    GPIPE_ASSIGN_OR_RETURN(const uint64_t length, HeaderBytes(prefix, file_size));
    prefix.resize(length);
    file.read(prefix.data() + kLengthBytes, static_cast<std::streamsize>(length - kLengthBytes));
  }
  if (!file) return ErrnoStatus(EIO, "cannot read", path);
  return ParseHeader(prefix, file_size);
}

std::string BuildHeader(std::vector<std::pair<std::string, TensorInfo>>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (auto& [name, info] : tensors) {
    uint64_t bytes = static_cast<uint64_t>(ElementSize(info.dtype));
    for (int64_t size : info.shape) bytes *= static_cast<uint64_t>(size);
    info.begin = offset;
    info.end = offset += bytes;
    header[name] = {{"dtype", DtypeName(info.dtype)}, {"shape", info.shape}, {"data_offsets", {info.begin, info.end}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // Keeps the data aligned, as other writers do.
  for (auto& [name, info] : tensors) {
    info.begin += kLengthBytes + text.size();
    info.end += kLengthBytes + text.size();
  }
  return EncodeLength(text.size()) + text;
}

}  // namespace gpipe::safetensors
