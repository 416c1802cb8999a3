#ifndef GPIPE_COMMON_ARTIFACTS_PIECE_MESSAGE_H_
#define GPIPE_COMMON_ARTIFACTS_PIECE_MESSAGE_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace gpipe {

// Bytes of a file as they travel: the message that Protocol Buffers would write for one `bytes` field, but made of the
// memory that holds them, and taken apart without copying them: what a message class would copy twice on each side.
// These are v1::DownloadArtifactResponse and the `data` of v1::UploadArtifactRequest, and either end may be either.
inline constexpr int kDownloadDataField = 1;
inline constexpr int kUploadDataField = 2;

grpc::ByteBuffer MakePiece(int field, grpc::Slice data);

// The bytes in the message, in order. None when it is any other message than one with this field alone.
std::optional<std::vector<grpc::Slice>> TakePiece(int field, const grpc::ByteBuffer& message);

// Up to `most` bytes of an open file from `offset` on, fewer only at its end. Errors name `path`.
absl::StatusOr<grpc::Slice> ReadPiece(int fd, const std::filesystem::path& path, int64_t offset, size_t most);

inline std::string_view View(const grpc::Slice& slice) {
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_PIECE_MESSAGE_H_
