// Files of tokens: OpenTokens, and what is looked at of their content.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/data/in_file.h"
#include "common/data/sample_table.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::data {
namespace {

// llm.c puts 256 numbers of 32 bits in front: what it is, a version, how many tokens follow.
constexpr uint64_t kPreambleBytes = 1024;
constexpr struct {
  int32_t magic;
  int32_t version;
  Storage storage;
} kPreambles[] = {{20240520, 1, Storage::kUint16}, {20240801, 7, Storage::kUint32}};

constexpr std::string_view kMegatronMagic("MMIDIDX\0\0", 9);
constexpr uint64_t kMegatronVersion = 1;

// The pieces that LargestTokenSeen looks at.
constexpr int64_t kPieces = 64;
constexpr int64_t kPieceTokens = 16 << 10;

// What a file of tokens says of itself.
struct TokenFile {
  Storage storage = Storage::kAsTyped;  // kAsTyped: it does not say.
  uint64_t begin = 0;
  std::string writer = "";  // Who says so.
};

template <typename T>
T Take(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));  // Little-endian, as are the machines this runs on.
  return value;
}

Storage StorageOf(v1::TokenType type) {
  switch (type) {
    case v1::TOKEN_TYPE_UINT8:
      return Storage::kUint8;
    case v1::TOKEN_TYPE_UINT16:
      return Storage::kUint16;
    case v1::TOKEN_TYPE_UINT32:
      return Storage::kUint32;
    case v1::TOKEN_TYPE_INT32:
      return Storage::kInt32;
    default:
      return Storage::kAsTyped;
  }
}

const char* NameOf(Storage storage) {
  switch (storage) {
    case Storage::kUint8:
      return "uint8";
    case Storage::kUint16:
      return "uint16";
    case Storage::kUint32:
      return "uint32";
    case Storage::kInt32:
      return "int32";
    case Storage::kAsTyped:
      break;
  }
  return "unknown";
}

absl::StatusOr<TokenFile> ReadPreamble(const DataPath& file, uint64_t size) {
  GPIPE_ASSIGN_OR_RETURN(const std::string head, ReadFile(file.path, 12));
  if (head.size() < 12) return TokenFile();
  for (const auto& [magic, version, storage] : kPreambles) {
    if (Take<int32_t>(head, 0) != magic || Take<int32_t>(head, 4) != version) continue;
    const uint64_t promised = static_cast<uint64_t>(Take<uint32_t>(head, 8)) * StoredSize(storage, {});
    if (kPreambleBytes + promised != size) {
      return absl::InvalidArgumentError(
          absl::StrCat("it begins as a file of llm.c with ", kPreambleBytes + promised, " bytes, and has ", size));
    }
    return TokenFile{.storage = storage, .begin = kPreambleBytes, .writer = "llm.c"};
  }
  return TokenFile();
}

// Megatron's codes of NumPy types.
absl::StatusOr<Storage> MegatronStorage(int code) {
  switch (code) {
    case 1:
      return Storage::kUint8;
    case 4:
      return Storage::kInt32;
    case 8:
      return Storage::kUint16;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("Megatron's index gives the tokens type ", code, ", which is none of uint8, uint16 and int32"));
  }
}

absl::StatusOr<TokenFile> ReadIndexFile(const DataPath& file) {
  GPIPE_ASSIGN_OR_RETURN(const std::string head, ReadFile(file.index, 34));
  const bool good = head.size() >= 34 && std::string_view(head).substr(0, kMegatronMagic.size()) == kMegatronMagic &&
                    Take<uint64_t>(head, 9) == kMegatronVersion;
  if (!good) return absl::InvalidArgumentError("the .idx beside it is not an index of Megatron's");
  TokenFile read;
  read.writer = "Megatron's index";
  GPIPE_ASSIGN_OR_RETURN(read.storage, MegatronStorage(static_cast<unsigned char>(head[17])));
  return read;
}

absl::StatusOr<TokenFile> Identify(const DataPath& file, uint64_t size, v1::TokenType given) {
  absl::StatusOr<TokenFile> read = file.index.empty() ? ReadPreamble(file, size) : ReadIndexFile(file);
  if (!read.ok()) return read;
  const Storage asked = StorageOf(given);
  if (read->storage == Storage::kAsTyped) {
    if (asked == Storage::kAsTyped) return absl::InvalidArgumentError("it does not say its type: give dtype");
    read->storage = asked;
  }
  if (asked != Storage::kAsTyped && asked != read->storage) {
    return absl::InvalidArgumentError(
        absl::StrCat("its tokens are ", NameOf(read->storage), ", as ", read->writer, " says, not ", NameOf(asked)));
  }
  return read;
}

void AddWindows(int file, const TokenFile& read, int64_t count, int64_t length, SampleTable& table) {
  const int64_t width = StoredSize(read.storage, {});
  const int64_t windows = std::max<int64_t>(count - 1, 0) / length;
  for (const char* name : {"input", "target"}) {
    SampleTensor& tensor = table.tensors[name];
    tensor.dtype = v1::DATA_TYPE_INT64;
    tensor.shape = {length};
    tensor.storage = read.storage;
    tensor.stride = static_cast<uint64_t>(length * width);
    tensor.samples += windows;
    const uint64_t shift = name == std::string_view("target") ? static_cast<uint64_t>(width) : 0;
    tensor.parts.push_back({.file = file, .samples = windows, .begin = read.begin + shift});
  }
}

absl::Status AddFile(int index, const v1::Tokens& tokens, SampleTable& table) {
  const DataPath& file = table.files[index];
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(file.path, error);
  if (error) return ErrnoStatus(error.value(), "cannot read", file.path);
  GPIPE_ASSIGN_OR_RETURN(const TokenFile read, Identify(file, size, tokens.dtype()));
  const uint64_t width = static_cast<uint64_t>(StoredSize(read.storage, {}));
  if ((size - read.begin) % width != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("its ", size - read.begin, " bytes are no whole number of ", NameOf(read.storage), " tokens"));
  }
  if (index > 0 && table.tensors.at("input").storage != read.storage) {
    return absl::InvalidArgumentError(absl::StrCat("its tokens are ", NameOf(read.storage), ", those of '",
                                                   table.files[0].name, "' ",
                                                   NameOf(table.tensors.at("input").storage)));
  }
  AddWindows(index, read, static_cast<int64_t>((size - read.begin) / width), tokens.sequence_length(), table);
  return absl::OkStatus();
}

int64_t Widen(const char* bytes, Storage storage) {
  switch (storage) {
    case Storage::kUint8:
      return static_cast<unsigned char>(*bytes);
    case Storage::kUint16:
      return Take<uint16_t>({bytes, 2}, 0);
    case Storage::kUint32:
      return Take<uint32_t>({bytes, 4}, 0);
    default:
      return Take<int32_t>({bytes, 4}, 0);
  }
}

}  // namespace

std::string IndexBeside(const std::string& path) { return absl::StrCat(absl::StripSuffix(path, ".bin"), ".idx"); }

absl::StatusOr<SampleTable> OpenTokens(std::vector<DataPath> files, const v1::Tokens& tokens) {
  SampleTable table;
  table.files = std::move(files);
  table.tokens = true;
  for (size_t i = 0; i < table.files.size(); ++i) {
    const absl::Status added = AddFile(static_cast<int>(i), tokens, table);
    if (!added.ok()) return InFile(table.files[i].name, added);
  }
  return table;
}

absl::StatusOr<int64_t> LargestTokenSeen(const SampleTable& table) {
  if (table.largest_token.has_value()) return *table.largest_token;
  const auto found = table.tensors.find("target");
  if (found == table.tensors.end()) return 0;
  const SampleTensor& target = found->second;
  const int64_t width = StoredSize(target.storage, target.dtype);
  const int64_t pieces = std::max<int64_t>(1, kPieces / static_cast<int64_t>(target.parts.size()));
  const size_t step = std::max<size_t>(1, target.parts.size() / kPieces);
  int64_t largest = 0;
  std::string bytes;
  for (size_t i = 0; i < target.parts.size(); i += step) {
    const Part& part = target.parts[i];
    const std::filesystem::path& path = table.files[part.file].path;
    std::ifstream input(path, std::ios::binary);
    const int64_t tokens = part.samples * target.elements();
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t first = tokens / pieces * piece;
      bytes.resize(static_cast<size_t>(std::min(tokens - first, kPieceTokens) * width));
      input.seekg(static_cast<std::streamoff>(part.begin) + first * width);
      input.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      if (!input) return ErrnoStatus(EIO, "cannot read", path);
      for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(width)) {
        largest = std::max(largest, Widen(bytes.data() + at, target.storage));
      }
    }
  }
  return largest;
}

}  // namespace gpipe::data
