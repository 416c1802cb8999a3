#include "common/data/npy.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::data {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
// NumPy itself refuses longer ones of files that it does not trust.
constexpr size_t kMaxHeaderBytes = 10'000;
constexpr size_t kPrefixBytes = 12 + kMaxHeaderBytes;

constexpr std::array<std::pair<std::string_view, v1::DataType>, 14> kTypes = {{
    {"<f4", v1::DATA_TYPE_FLOAT32},
    {"<f8", v1::DATA_TYPE_FLOAT64},
    {"<f2", v1::DATA_TYPE_FLOAT16},
    {"<i8", v1::DATA_TYPE_INT64},
    {"<i4", v1::DATA_TYPE_INT32},
    {"<i2", v1::DATA_TYPE_INT16},
    {"|i1", v1::DATA_TYPE_INT8},
    {"|u1", v1::DATA_TYPE_UINT8},
    {"|b1", v1::DATA_TYPE_BOOL},
    {"<u2", v1::DATA_TYPE_UINT16},
    {"<u4", v1::DATA_TYPE_UINT32},
    {"<u8", v1::DATA_TYPE_UINT64},
    {"<c8", v1::DATA_TYPE_COMPLEX64},
    {"<c16", v1::DATA_TYPE_COMPLEX128},
}};

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a NumPy file that can be used: ", AbslView(what)));
}

// What follows `'key':` in the header, which is the text of a Python dictionary; empty when it is not there.
std::string_view After(std::string_view header, std::string_view key) {
  const size_t at = header.find(absl::StrCat("'", AbslView(key), "':"));
  if (at == std::string_view::npos) return {};
  std::string_view rest = header.substr(at + key.size() + 3);
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  return rest;
}

absl::StatusOr<v1::DataType> ParseType(std::string_view header) {
  const std::string_view rest = After(header, "descr");
  if (rest.empty() || rest[0] != '\'') return Bad("it holds no plain numbers");
  const std::string_view name = rest.substr(1, rest.find('\'', 1) - 1);
  for (const auto& [known, dtype] : kTypes) {
    if (name == known) return dtype;
  }
  return Bad(absl::StrCat("its type '", AbslView(name), "' is none that a tensor of a job can have"));
}

absl::StatusOr<std::vector<int64_t>> ParseShape(std::string_view header) {
  const std::string_view rest = After(header, "shape");
  const size_t close = rest.find(')');
  if (rest.empty() || rest[0] != '(' || close == std::string_view::npos) return Bad("it has no shape");
  std::vector<int64_t> shape;
  for (absl::string_view text : absl::StrSplit(AbslView(rest.substr(1, close - 1)), ',')) {
    text = absl::StripAsciiWhitespace(text);
    if (text.empty()) continue;  // After the comma of `(3,)`.
    int64_t size = 0;
    if (!absl::SimpleAtoi(text, &size) || size < 0) return Bad("its shape is not of whole numbers");
    shape.push_back(size);
  }
  return shape;
}

// The length of the header's text, little-endian, and where the text begins.
absl::StatusOr<std::pair<size_t, size_t>> HeaderRange(std::string_view prefix) {
  if (prefix.size() < 12 || prefix.substr(0, kMagic.size()) != kMagic) return Bad("it does not begin as one");
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(prefix[i])); };
  const size_t begin = byte(6) == 1 ? 10 : 12;
  size_t length = byte(8) | byte(9) << 8;
  if (begin == 12) length |= byte(10) << 16 | byte(11) << 24;
  if (length > kMaxHeaderBytes) return Bad("its header is too long");
  if (begin + length > prefix.size()) return Bad("its header is cut off");
  return std::pair(begin, length);
}

}  // namespace

absl::StatusOr<safetensors::TensorInfo> ParseNpyHeader(std::string_view prefix, uint64_t file_size) {
  GPIPE_ASSIGN_OR_RETURN(const auto range, HeaderRange(prefix));
  const std::string_view header = prefix.substr(range.first, range.second);
  safetensors::TensorInfo info;
  GPIPE_ASSIGN_OR_RETURN(info.dtype, ParseType(header));
  GPIPE_ASSIGN_OR_RETURN(info.shape, ParseShape(header));
  const bool columns_first = After(header, "fortran_order").substr(0, 4) == "True";
  if (columns_first && info.shape.size() > 1) {
    return Bad("it is stored columns first (Fortran order); numpy.ascontiguousarray makes it rows first");
  }
  uint64_t bytes = static_cast<uint64_t>(safetensors::ElementSize(info.dtype));
  for (const int64_t size : info.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) return Bad("it is too large");
  }
  info.begin = range.first + range.second;
  if (bytes > file_size - info.begin) {
    return Bad(absl::StrCat("it is cut off: its array needs ", bytes, " bytes, it has ", file_size - info.begin));
  }
  info.end = info.begin + bytes;
  return info;
}

absl::StatusOr<safetensors::TensorInfo> ReadNpyHeader(const std::filesystem::path& path) {
  std::error_code error;
  const uint64_t file_size = std::filesystem::file_size(path, error);
  if (error) return ErrnoStatus(error.value(), "cannot read", path);
  GPIPE_ASSIGN_OR_RETURN(const std::string prefix, ReadFile(path, kPrefixBytes));
  return ParseNpyHeader(prefix, file_size);
}

}  // namespace gpipe::data
