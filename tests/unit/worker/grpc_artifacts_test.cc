#include "worker/session/grpc_artifacts.h"

#include <optional>
#include <string>

#include "common/artifacts/layout.h"
#include "common/artifacts/local_store.h"
#include "common/file.h"
#include "common/sha256.h"
#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

// Nobody listens, so that whatever is answered comes from the folder.
class GrpcArtifactsTest : public testing::Test {
 protected:
  GrpcArtifactsTest()
      : folder_(*TemporaryFolder::Create("grpc_artifacts_test")), artifacts_(connections_, folder_.path()) {}

  v1::ArtifactRef Put(const std::string& content) {
    Sha256 hash;
    hash.Update(content);
    v1::ArtifactRef ref;
    ref.set_sha256(hash.HexDigest());
    ref.set_size(static_cast<int64_t>(content.size()));
    const std::filesystem::path path = ArtifactPath(folder_.path(), ref.sha256());
    std::filesystem::create_directories(path.parent_path());
    EXPECT_TRUE(WriteFileAtomically(path, content).ok());
    return ref;
  }

  const TemporaryFolder folder_;
  ArtifactConnections connections_{Endpoint{"127.0.0.1:1"}};
  GrpcArtifacts artifacts_;
};

TEST_F(GrpcArtifactsTest, AFileOfThisMachineIsReadWhereItIs) {
  const v1::ArtifactRef ref = Put("0123456789");
  std::string data(4, ' ');
  ASSERT_TRUE(artifacts_.Read(ref, 3, absl::MakeSpan(data)).ok());
  EXPECT_EQ(data, "3456");
  EXPECT_EQ(artifacts_.Read(ref, 8, absl::MakeSpan(data)).code(), absl::StatusCode::kDataLoss);
}

TEST_F(GrpcArtifactsTest, TheFolderCanBeWrittenToWhereItIsAnOrchestrators) {
  EXPECT_EQ(artifacts_.WritableFolder(), std::nullopt);
  std::filesystem::create_directory(folder_.path() / kTemporaryFolder);
  EXPECT_EQ(artifacts_.WritableFolder(), folder_.path());
  EXPECT_EQ(GrpcArtifacts(connections_).WritableFolder(), std::nullopt);
}

TEST_F(GrpcArtifactsTest, AFileOfThisMachineIsFound) {
  const v1::ArtifactRef ref = Put("0123456789");
  const auto found = artifacts_.Find(ref);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, ArtifactPath(folder_.path(), ref.sha256()));
  ASSERT_TRUE(artifacts_.Download(ref, folder_.path() / "copy").ok());
  EXPECT_EQ(*ReadFile(folder_.path() / "copy"), "0123456789");
}

TEST_F(GrpcArtifactsTest, AFileOfTheUsersThatHasChangedIsNamed) {
  const std::filesystem::path path = folder_.path() / "model.pt2";
  ASSERT_TRUE(WriteFileAtomically(path, "0123456789").ok());
  const HashedFile file = *HashFile(path);
  ASSERT_TRUE(ReferToFile(folder_.path(), file, path).ok());
  EXPECT_EQ(*artifacts_.Find(file.ref), path);
  ASSERT_TRUE(WriteFileAtomically(path, "9876543210").ok());
  std::string data(4, ' ');
  EXPECT_EQ(artifacts_.Read(file.ref, 3, absl::MakeSpan(data)).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(GrpcArtifactsTest, WhatIsNotHereIsAskedFor) {
  v1::ArtifactRef ref = Put("0123456789");
  ref.set_size(9);
  std::string data(4, ' ');
  EXPECT_EQ(*artifacts_.Find(ref), std::nullopt);
  EXPECT_EQ(artifacts_.Read(ref, 3, absl::MakeSpan(data)).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(artifacts_.Download(ref, folder_.path() / "copy").code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace gpipe::worker
