#include "common/file.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = TemporaryFolder::Create("file_test");
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_.emplace(*std::move(folder));
  }
  fs::path At(const char* name) const { return folder_->path() / name; }
  int Entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(folder_->path()), fs::directory_iterator()));
  }
  std::optional<TemporaryFolder> folder_;
};

TEST(ErrnoStatusTest, NamesWhatAndWhere) {
  const auto expect = [](int error, absl::StatusCode code, const char* what) {
    const absl::Status status = ErrnoStatus(error, "cannot write", "/data/x");
    EXPECT_EQ(status.code(), code) << error;
    EXPECT_THAT(std::string(status.message()), testing::StartsWith("cannot write /data/x: ")) << error;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(what)) << error;
  };
  expect(ENOENT, absl::StatusCode::kNotFound, "No such file");
  expect(ENOSPC, absl::StatusCode::kResourceExhausted, "disk full");
  expect(EDQUOT, absl::StatusCode::kResourceExhausted, "disk full");
  expect(EACCES, absl::StatusCode::kPermissionDenied, "denied");
  expect(EROFS, absl::StatusCode::kPermissionDenied, "Read-only");
  expect(EIO, absl::StatusCode::kInternal, "error");
}

TEST_F(FileTest, WritesAndReads) {
  const std::string content("a\0b\n", 4);
  ASSERT_TRUE(WriteFileAtomically(At("x"), content).ok());
  EXPECT_EQ(*ReadFile(At("x")), content);
  ASSERT_TRUE(WriteFileAtomically(At("x"), "").ok());
  EXPECT_EQ(*ReadFile(At("x")), "");
  EXPECT_EQ(Entries(), 1);
}

TEST_F(FileTest, ReadsLargeFilesWhole) {
  const std::string content(1'000'003, 'z');
  ASSERT_TRUE(WriteFileAtomically(At("x"), content).ok());
  EXPECT_EQ(*ReadFile(At("x")), content);
}

TEST_F(FileTest, NamesMissingFilesAndFolders) {
  EXPECT_EQ(ReadFile(At("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ReadFile(At("none")).status().message()), testing::HasSubstr(At("none").string()));
  EXPECT_EQ(AtomicFile::Create(At("none/x")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadFile(folder_->path()).ok());
}

TEST_F(FileTest, NothingAppearsWithoutCommit) {
  {
    auto file = AtomicFile::Create(At("x"));
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Append("half").ok());
    EXPECT_FALSE(fs::exists(At("x")));
  }
  EXPECT_EQ(Entries(), 0);
}

TEST_F(FileTest, TheOldContentStaysUntilCommit) {
  ASSERT_TRUE(WriteFileAtomically(At("x"), "old").ok());
  auto file = AtomicFile::Create(At("x"));
  ASSERT_TRUE(file.ok() && file->Append("new").ok());
  EXPECT_EQ(*ReadFile(At("x")), "old");
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(*ReadFile(At("x")), "new");
  EXPECT_EQ(Entries(), 1);
}

TEST_F(FileTest, ACommittedFileTakesNoMore) {
  auto file = AtomicFile::Create(At("x"));
  ASSERT_TRUE(file.ok() && file->Commit().ok());
  EXPECT_FALSE(file->Append("more").ok());
  EXPECT_FALSE(file->Commit().ok());
  EXPECT_EQ(*ReadFile(At("x")), "");
}

TEST_F(FileTest, WritesAtPlacesBeyondTheEnd) {
  auto file = AtomicFile::Create(At("x"));
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->WriteAt(4, "ef").ok());
  ASSERT_TRUE(file->WriteAt(0, "ab").ok());
  ASSERT_TRUE(file->Append("gh").ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(*ReadFile(At("x")), std::string("ab\0\0efgh", 8));
}

TEST_F(FileTest, SeveralThreadsWriteAtDifferentPlaces) {
  auto file = AtomicFile::Create(At("x"));
  ASSERT_TRUE(file.ok());
  std::vector<std::thread> threads;
  for (int i = 3; i >= 0; --i) {
    threads.emplace_back([&file, i] { EXPECT_TRUE(file->WriteAt(2 * i, std::string(2, 'a' + i)).ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(file->Append("!").ok() && file->Commit().ok());
  EXPECT_EQ(*ReadFile(At("x")), "aabbccdd!");
}

TEST_F(FileTest, TwoWritersOfOneNameDoNotMeet) {
  auto first = AtomicFile::Create(At("x")), second = AtomicFile::Create(At("x"));
  ASSERT_TRUE(first.ok() && second.ok());
  ASSERT_TRUE(first->Append("first").ok() && second->Append("second").ok());
  ASSERT_TRUE(second->Commit().ok());
  ASSERT_TRUE(first->Commit().ok());
  EXPECT_EQ(*ReadFile(At("x")), "first");
}

TEST_F(FileTest, OnlyAFileIsReplaced) {
  const fs::path pipe = At("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const fs::path& path : {pipe, folder_->path()}) {
    const absl::Status status = WriteFileAtomically(path, "x");
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  }
  EXPECT_TRUE(fs::is_fifo(pipe));
}

TEST_F(FileTest, ReadsNoMoreThanIsAskedFor) {
  EXPECT_EQ(ReadFile("/dev/zero", 100'000)->size(), 100'000u);
  EXPECT_EQ(ReadFile("/dev/zero", 0)->size(), 0u);
}

TEST_F(FileTest, MovesLeaveOneOwner) {
  auto made = AtomicFile::Create(At("x"));
  ASSERT_TRUE(made.ok());
  AtomicFile moved = *std::move(made);
  auto other = AtomicFile::Create(At("y"));
  ASSERT_TRUE(other.ok());
  moved = *std::move(other);  // What was begun for x is discarded.
  EXPECT_EQ(Entries(), 1);
  ASSERT_TRUE(moved.Append("y").ok() && moved.Commit().ok());
  EXPECT_TRUE(fs::exists(At("y")));
  EXPECT_FALSE(fs::exists(At("x")));
}

TEST(TemporaryFolderTest, GoesWithAllItsContent) {
  fs::path path;
  {
    auto folder = TemporaryFolder::Create("file_test");
    ASSERT_TRUE(folder.ok());
    path = folder->path();
    fs::create_directories(path / "a" / "b");
    ASSERT_TRUE(WriteFileAtomically(path / "a" / "b" / "c", "x").ok());
    TemporaryFolder moved = *std::move(folder);
    EXPECT_EQ(moved.path(), path);
    EXPECT_TRUE(fs::exists(path));
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(TemporaryFolderTest, StaysWhenItIsToBeKept) {
  fs::path path;
  {
    TemporaryFolder folder = TemporaryFolder::Create("gpipe-test").value();
    folder.Keep();
    const TemporaryFolder moved = std::move(folder);
    path = moved.path();
  }
  EXPECT_TRUE(fs::exists(path));
  fs::remove_all(path);
}

TEST_F(FileTest, Sha256OfFilesIsThatOfTheirContent) {
  // FIPS 180-2's vectors, the last one longer than one read.
  const std::pair<std::string, const char*> vectors[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(1'000'000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"}};
  for (const auto& [content, digest] : vectors) {
    Sha256 whole, pieces;
    whole.Update(content);
    for (size_t i = 0; i < content.size(); i += 999) pieces.Update(std::string_view(content).substr(i, 999));
    EXPECT_EQ(whole.HexDigest(), digest);
    EXPECT_EQ(pieces.HexDigest(), digest);
    ASSERT_TRUE(WriteFileAtomically(At("x"), content).ok());
    EXPECT_EQ(*Sha256OfFile(At("x")), digest);
  }
  EXPECT_EQ(Sha256OfFile(At("none")).status().code(), absl::StatusCode::kNotFound);
}

TEST(Sha256Test, KnowsADigestFromAPath) {
  const std::string good(64, 'a');
  EXPECT_TRUE(IsSha256(good));
  EXPECT_FALSE(IsSha256(good + "a"));
  EXPECT_FALSE(IsSha256(good.substr(1)));
  EXPECT_FALSE(IsSha256(std::string(64, 'A')));
  EXPECT_FALSE(IsSha256("../" + good.substr(3)));
  EXPECT_FALSE(IsSha256(""));
}

}  // namespace
}  // namespace gpipe
