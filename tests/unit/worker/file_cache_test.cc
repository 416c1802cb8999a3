#include "worker/data/file_cache.h"

#include <filesystem>
#include <string>

#include "common/file.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/memory_artifacts.h"

namespace gpipe::worker {
namespace {

class FileCacheTest : public testing::Test {
 protected:
  FileCacheTest() : folder_(*TemporaryFolder::Create("cache-test")) {}
  FileCache Make(int64_t limit) { return *FileCache::Create(folder_.path() / "cache", limit, artifacts_); }
  static v1::ArtifactRef Ref(MemoryArtifacts& artifacts, char fill) { return artifacts.Add(std::string(100, fill)); }

  TemporaryFolder folder_;
  MemoryArtifacts artifacts_;
};

TEST_F(FileCacheTest, FetchesEachContentOnce) {
  FileCache cache = Make(1000);
  const v1::ArtifactRef ref = artifacts_.Add("weights");
  const std::filesystem::path path = *cache.Fetch(ref);
  EXPECT_EQ(*ReadFile(path), "weights");
  EXPECT_EQ(*cache.Fetch(ref), path);
  cache.ReleaseAll();
  EXPECT_EQ(*cache.Fetch(ref), path);
  EXPECT_EQ(artifacts_.downloads(), 1);
}

TEST_F(FileCacheTest, WhatIsOnThisMachineIsUsedWhereItIs) {
  FileCache cache = Make(1000);
  const v1::ArtifactRef ref = artifacts_.Add("weights");
  artifacts_.SayItIsHere(ref, folder_.path() / "weights");
  EXPECT_EQ(*cache.Fetch(ref), folder_.path() / "weights");
  EXPECT_EQ(artifacts_.downloads(), 0);
  EXPECT_EQ(cache.bytes(), 0);
}

TEST_F(FileCacheTest, TheLongestUnusedGoesFirst) {
  FileCache cache = Make(250);
  const v1::ArtifactRef a = Ref(artifacts_, 'a'), b = Ref(artifacts_, 'b'), c = Ref(artifacts_, 'c');
  const std::filesystem::path path_a = *cache.Fetch(a), path_b = *cache.Fetch(b);
  ASSERT_TRUE(cache.Fetch(a).ok());  // Now b is the one used longest ago.
  cache.ReleaseAll();
  ASSERT_TRUE(cache.Fetch(c).ok());
  EXPECT_TRUE(std::filesystem::exists(path_a));
  EXPECT_FALSE(std::filesystem::exists(path_b));
  EXPECT_EQ(cache.bytes(), 200);
}

TEST_F(FileCacheTest, WhatAnAttemptUsesStaysBeyondTheLimit) {
  FileCache cache = Make(150);
  const std::filesystem::path a = *cache.Fetch(Ref(artifacts_, 'a')), b = *cache.Fetch(Ref(artifacts_, 'b'));
  EXPECT_TRUE(std::filesystem::exists(a) && std::filesystem::exists(b));
  cache.ReleaseAll();
  EXPECT_LE(cache.bytes(), 150);
}

TEST_F(FileCacheTest, ARefThatIsNoHashIsRefused) {
  FileCache cache = Make(150);
  v1::ArtifactRef ref;
  ref.set_sha256("../../etc/passwd");
  EXPECT_EQ(cache.Fetch(ref).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(artifacts_.downloads(), 0);
}

TEST_F(FileCacheTest, AFailedDownloadLeavesNothing) {
  FileCache cache = Make(150);
  v1::ArtifactRef ref = Ref(artifacts_, 'a');
  ref.set_sha256(std::string(64, '0'));
  EXPECT_EQ(cache.Fetch(ref).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(cache.bytes(), 0);
}

TEST_F(FileCacheTest, ANewCacheBeginsEmpty) {
  const std::filesystem::path path = *Make(150).Fetch(Ref(artifacts_, 'a'));
  Make(150);
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace gpipe::worker
