#include "common/artifacts/hashing_file.h"

#include <string>

#include "gtest/gtest.h"

namespace gpipe {
namespace {

class HashingFileTest : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_.path() / "file"; }
  bool Empty() const { return std::filesystem::is_empty(folder_.path()); }
  const TemporaryFolder folder_ = *TemporaryFolder::Create("hashing_file_test");
};

TEST_F(HashingFileTest, SaysWhatWasWritten) {
  for (const auto flush : {HashingFile::Flush::kEarly, HashingFile::Flush::kLate}) {
    auto file = HashingFile::Create(path(), flush);
    ASSERT_TRUE(file.ok()) << file.status();
    // Hashed by either thread, in turns.
    const std::string small(1000, 's'), large(30'000'000, 'l'), other(1'000'000, 'o');
    std::string content;
    for (const std::string* piece : {&small, &large, &small, &small, &other, &large, &small}) {
      ASSERT_TRUE((*file)->Append(*piece).ok());
      content += *piece;
    }
    const auto ref = (*file)->Finish();
    ASSERT_TRUE(ref.ok()) << ref.status();
    EXPECT_EQ(*ReadFile(path()), content);
    EXPECT_EQ(ref->sha256(), *Sha256OfFile(path()));
    EXPECT_EQ(ref->size(), static_cast<int64_t>(content.size()));
  }
}

TEST_F(HashingFileTest, OneThatIsNotFinishedLeavesNothing) {
  const std::string large(3'000'000, 'l');
  {
    auto file = HashingFile::Create(path(), HashingFile::Flush::kLate);
    ASSERT_TRUE((*file)->Append(large).ok());
    EXPECT_FALSE(Empty());
  }
  EXPECT_TRUE(Empty());
}

TEST_F(HashingFileTest, StopsBetweenPieces) {
  std::stop_source stop;
  const std::string large(3'000'000, 'l');
  {
    auto file = HashingFile::Create(path(), HashingFile::Flush::kLate, stop.get_token());
    ASSERT_TRUE((*file)->Append(large).ok());
    stop.request_stop();
    EXPECT_TRUE(absl::IsCancelled((*file)->Append(large)));
    EXPECT_TRUE((*file)->Append({}).ok());
  }
  EXPECT_TRUE(Empty());
}

}  // namespace
}  // namespace gpipe
