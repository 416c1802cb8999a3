#include "common/artifacts/piece_message.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "common/artifacts/raw_call.h"
#include "common/file.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

constexpr size_t kSizes[] = {1, 127, 128, 16'383, 16'384, 1 << 20};

std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 4096);
  return bytes;
}

std::string Join(const std::vector<grpc::Slice>& slices) {
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes += View(slice);
  return bytes;
}

// The same message as the network may deliver it.
grpc::ByteBuffer InPiecesOf(size_t size, const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(message.Dump(&slices).ok());
  const std::string bytes = Join(slices);
  slices.clear();
  for (size_t i = 0; i < bytes.size(); i += size) slices.emplace_back(bytes.substr(i, size));
  return {slices.data(), slices.size()};
}

TEST(PieceMessage, IsWhatAMessageClassReads) {
  for (const size_t size : kSizes) {
    grpc::ByteBuffer download = MakePiece(kDownloadDataField, grpc::Slice(Pattern(size)));
    v1::DownloadArtifactResponse response;
    ASSERT_TRUE(grpc::SerializationTraits<v1::DownloadArtifactResponse>::Deserialize(&download, &response).ok());
    EXPECT_EQ(response.data(), Pattern(size));
    grpc::ByteBuffer upload = MakePiece(kUploadDataField, grpc::Slice(Pattern(size)));
    v1::UploadArtifactRequest request;
    ASSERT_TRUE(grpc::SerializationTraits<v1::UploadArtifactRequest>::Deserialize(&upload, &request).ok());
    EXPECT_EQ(request.data(), Pattern(size));
  }
}

TEST(PieceMessage, ReadsWhatAMessageClassWrites) {
  for (const size_t size : kSizes) {
    v1::UploadArtifactRequest request;
    request.set_data(Pattern(size));
    for (const size_t slice : {size_t{1}, size_t{2}, size_t{5}, size_t{100'000}}) {
      if (size / slice > 100'000) continue;
      const auto data = TakePiece(kUploadDataField, InPiecesOf(slice, ToBuffer(request)));
      ASSERT_TRUE(data.has_value()) << size << " in pieces of " << slice;
      EXPECT_EQ(Join(*data), Pattern(size));
    }
  }
}

TEST(PieceMessage, IsNoOtherMessage) {
  v1::UploadArtifactRequest request;
  EXPECT_FALSE(TakePiece(kUploadDataField, ToBuffer(request)).has_value());
  request.mutable_ref()->set_size(7);
  EXPECT_FALSE(TakePiece(kUploadDataField, ToBuffer(request)).has_value());
  const grpc::ByteBuffer piece = MakePiece(kUploadDataField, grpc::Slice("content"));
  EXPECT_FALSE(TakePiece(kDownloadDataField, piece).has_value());
  EXPECT_FALSE(TakePiece(kUploadDataField, grpc::ByteBuffer()).has_value());
  for (const std::string& bytes : {std::string("\x12"), std::string("\x12\x05xx"), std::string("\x12\x01xx"),
                                   "\x12" + std::string(12, '\xff'), "\x12" + std::string(9, '\xff') + "\x7f"}) {
    const grpc::Slice slice(bytes);
    EXPECT_FALSE(TakePiece(kUploadDataField, grpc::ByteBuffer(&slice, 1)).has_value()) << bytes.size();
  }
}

TEST(PieceMessage, PiecesOfAFileEndWithIt) {
  const auto folder = TemporaryFolder::Create("piece_message_test");
  const std::filesystem::path path = folder->path() / "file";
  ASSERT_TRUE(WriteFileAtomically(path, Pattern(1000)).ok());
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(View(*ReadPiece(fd, path, 0, 600)), Pattern(1000).substr(0, 600));
  EXPECT_EQ(View(*ReadPiece(fd, path, 600, 600)), Pattern(1000).substr(600));
  EXPECT_EQ(ReadPiece(fd, path, 1000, 600)->size(), 0u);
  close(fd);
  EXPECT_FALSE(ReadPiece(fd, path, 0, 600).ok());
}

}  // namespace
}  // namespace gpipe
