#include "common/artifacts/piece_message.h"

#include <grpc/slice.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "common/file.h"

namespace gpipe {
namespace {

// A field's number and kind take one byte up to number 15, its length up to ten.
constexpr size_t kMostHeaderBytes = 11;
constexpr uint8_t kBytesKind = 2;

uint8_t TagOf(int field) { return static_cast<uint8_t>(field << 3 | kBytesKind); }

// The first bytes of the message, wherever its slices end.
size_t CopyBeginning(const std::vector<grpc::Slice>& slices, std::array<uint8_t, kMostHeaderBytes>& bytes) {
  size_t count = 0;
  for (const grpc::Slice& slice : slices) {
    for (size_t i = 0; i < slice.size() && count < bytes.size(); ++i) bytes[count++] = slice.begin()[i];
  }
  return count;
}

// How long the header is and what length it tells of; none when it is no header of this field.
struct PieceHeader {
  size_t bytes = 0;
  uint64_t length = 0;
};
std::optional<PieceHeader> ReadHeader(int field, const std::vector<grpc::Slice>& slices) {
  std::array<uint8_t, kMostHeaderBytes> bytes;
  const size_t count = CopyBeginning(slices, bytes);
  if (count < 2 || bytes[0] != TagOf(field)) return std::nullopt;
  PieceHeader header;
  for (size_t i = 1; i < count; ++i) {
    header.length |= uint64_t{bytes[i] & 0x7fu} << (7 * (i - 1));
    header.bytes = i + 1;
    if (bytes[i] < 0x80) return header;
  }
  return std::nullopt;
}

}  // namespace

grpc::ByteBuffer MakePiece(int field, grpc::Slice data) {
  std::array<uint8_t, kMostHeaderBytes> header{TagOf(field)};
  size_t bytes = 1;
  uint64_t rest = data.size();
  for (; rest >= 0x80; rest >>= 7) header[bytes++] = static_cast<uint8_t>(rest | 0x80);
  header[bytes++] = static_cast<uint8_t>(rest);
  const grpc::Slice slices[] = {grpc::Slice(header.data(), bytes), std::move(data)};
  return {slices, 2};
}

std::optional<std::vector<grpc::Slice>> TakePiece(int field, const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  if (!message.Valid() || !message.Dump(&slices).ok()) return std::nullopt;
  const std::optional<PieceHeader> header = ReadHeader(field, slices);
  if (!header || header->length != message.Length() - header->bytes) return std::nullopt;
  size_t skip = header->bytes;
  std::vector<grpc::Slice> data;
  for (grpc::Slice& slice : slices) {
    const size_t skipped = std::min(skip, slice.size());
    skip -= skipped;
    if (skipped < slice.size()) data.push_back(skipped == 0 ? std::move(slice) : slice.sub(skipped, slice.size()));
  }
  return data;
}

absl::StatusOr<grpc::Slice> ReadPiece(int fd, const std::filesystem::path& path, int64_t offset, size_t most) {
  // The C++ class hands out no memory that may be written to.
  grpc_slice memory = grpc_slice_malloc(most);
  size_t filled = 0;
  while (filled < most) {
    const ssize_t count =
        pread(fd, GRPC_SLICE_START_PTR(memory) + filled, most - filled, offset + static_cast<int64_t>(filled));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      grpc_slice_unref(memory);
      return ErrnoStatus(error, "cannot read", path);
    }
    if (count == 0) break;
    filled += static_cast<size_t>(count);
  }
  const grpc::Slice piece(memory, grpc::Slice::STEAL_REF);
  return filled == most ? piece : piece.sub(0, filled);
}

}  // namespace gpipe
