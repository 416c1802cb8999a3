#include "worker/data/range_cache.h"

#include <filesystem>
#include <string>

#include "common/file.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/memory_artifacts.h"

namespace gpipe::worker {
namespace {

class RangeCacheTest : public testing::Test {
 protected:
  RangeCacheTest() : folder_(*TemporaryFolder::Create("range-cache-test")) {}
  RangeCache Make(int64_t limit) { return *RangeCache::Create(folder_.path() / "ranges", limit, artifacts_); }
  static std::string Read(RangeCache& cache, const v1::ArtifactRef& ref, int64_t offset, size_t size) {
    std::string data(size, ' ');
    const absl::Status status = cache.Read(ref, offset, absl::MakeSpan(data));
    return status.ok() ? data : status.ToString();
  }

  TemporaryFolder folder_;
  MemoryArtifacts artifacts_;
};

TEST_F(RangeCacheTest, ReadsEachByteOnce) {
  RangeCache cache = Make(1000);
  const v1::ArtifactRef ref = artifacts_.Add("0123456789abcdef");
  EXPECT_EQ(Read(cache, ref, 2, 4), "2345");
  EXPECT_EQ(Read(cache, ref, 3, 2), "34");
  EXPECT_EQ(Read(cache, ref, 2, 4), "2345");
  EXPECT_EQ(artifacts_.bytes_read(), 4);
  EXPECT_EQ(cache.bytes(), 4);
}

TEST_F(RangeCacheTest, NeighboursBecomeOneRange) {
  RangeCache cache = Make(1000);
  const v1::ArtifactRef ref = artifacts_.Add("0123456789abcdef");
  for (const int64_t offset : {8, 0, 4}) EXPECT_EQ(Read(cache, ref, offset, 4).size(), 4u);
  EXPECT_EQ(Read(cache, ref, 0, 12), "0123456789ab");
  EXPECT_EQ(artifacts_.bytes_read(), 12);
  EXPECT_EQ(Read(cache, ref, 10, 6), "abcdef");  // Part of it is new.
  EXPECT_EQ(Read(cache, ref, 0, 16), "0123456789abcdef");
  EXPECT_EQ(artifacts_.bytes_read(), 18);
  EXPECT_EQ(cache.bytes(), 16);
}

TEST_F(RangeCacheTest, WhatWasNotReadIsNotThere) {
  RangeCache cache = Make(1000);
  const v1::ArtifactRef ref = artifacts_.Add("0123456789abcdef");
  EXPECT_EQ(Read(cache, ref, 12, 4), "cdef");  // The file has a hole before it.
  EXPECT_EQ(Read(cache, ref, 4, 4), "4567");
  EXPECT_EQ(Read(cache, ref, 6, 8), "6789abcd");
  EXPECT_EQ(artifacts_.bytes_read(), 16);
}

TEST_F(RangeCacheTest, TheLongestUnusedGoesFirst) {
  RangeCache cache = Make(25);
  const v1::ArtifactRef a = artifacts_.Add(std::string(10, 'a')), b = artifacts_.Add(std::string(10, 'b')),
                        c = artifacts_.Add(std::string(10, 'c'));
  Read(cache, a, 0, 10);
  Read(cache, b, 0, 10);
  Read(cache, a, 0, 10);
  Read(cache, c, 0, 10);
  EXPECT_EQ(cache.bytes(), 20);
  EXPECT_EQ(artifacts_.bytes_read(), 30);
  Read(cache, a, 0, 10);
  EXPECT_EQ(artifacts_.bytes_read(), 30);
  EXPECT_EQ(Read(cache, b, 0, 10), std::string(10, 'b'));
  EXPECT_EQ(artifacts_.bytes_read(), 40);
}

TEST_F(RangeCacheTest, WhatIsLargerThanTheLimitIsNotKept) {
  RangeCache cache = Make(5);
  const v1::ArtifactRef ref = artifacts_.Add("0123456789abcdef");
  EXPECT_EQ(Read(cache, ref, 0, 16), "0123456789abcdef");
  EXPECT_EQ(Read(cache, ref, 0, 4), "0123");
  EXPECT_EQ(Read(cache, ref, 8, 4), "89ab");
  EXPECT_EQ(cache.bytes(), 4);
}

TEST_F(RangeCacheTest, AFileThatIsGoneIsFetchedAgain) {
  RangeCache cache = Make(1000);
  const v1::ArtifactRef ref = artifacts_.Add("0123456789abcdef");
  Read(cache, ref, 0, 4);
  std::filesystem::remove(folder_.path() / "ranges" / ref.sha256());
  EXPECT_EQ(Read(cache, ref, 0, 4), "0123");
  EXPECT_EQ(artifacts_.bytes_read(), 8);
}

TEST_F(RangeCacheTest, FailuresAreThoseOfTheArtifacts) {
  RangeCache cache = Make(1000);
  const v1::ArtifactRef ref = artifacts_.Add("0123456789abcdef");
  Read(cache, ref, 0, 4);
  artifacts_.Lose(absl::UnavailableError("gone"));
  std::string data(4, ' ');
  EXPECT_EQ(cache.Read(ref, 4, absl::MakeSpan(data)), absl::UnavailableError("gone"));
  EXPECT_TRUE(cache.Read(ref, 0, absl::MakeSpan(data)).ok());
}

}  // namespace
}  // namespace gpipe::worker
