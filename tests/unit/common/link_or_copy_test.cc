#include "common/link_or_copy.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>

#include "common/file.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

class LinkOrCopyTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = TemporaryFolder::Create("link_or_copy_test");
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_.emplace(*std::move(folder));
    ASSERT_TRUE(WriteFileAtomically(At("from"), Content()).ok());
  }
  // More than one piece of a copy, and no whole number of blocks.
  static std::string Content() {
    std::string content(3'000'001, '\0');
    for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 31 >> 4);
    return content;
  }
  fs::path At(const char* name) const { return folder_->path() / name; }
  int Entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(folder_->path()), fs::directory_iterator()));
  }
  // As most programs save a file again.
  static void WriteInPlace(const fs::path& path) { std::ofstream(path, std::ios::binary | std::ios::trunc) << "new"; }

  std::optional<TemporaryFolder> folder_;
};

TEST_F(LinkOrCopyTest, WithoutHardLinksTheTwoAreIndependent) {
  const auto kind = LinkOrCopyFile(At("from"), At("to"), HardLinks::kNever);
  ASSERT_TRUE(kind.ok()) << kind.status();
  EXPECT_NE(*kind, LinkKind::kHardLink);
  WriteInPlace(At("from"));
  EXPECT_EQ(*ReadFile(At("to")), Content());
  EXPECT_EQ(Entries(), 2);
}

TEST_F(LinkOrCopyTest, AHardLinkIsTheSameFile) {
  const auto kind = LinkOrCopyFile(At("from"), At("to"), HardLinks::kAlways);
  ASSERT_TRUE(kind.ok()) << kind.status();
  EXPECT_EQ(*ReadFile(At("to")), Content());
  EXPECT_EQ(fs::equivalent(At("from"), At("to")), *kind == LinkKind::kHardLink);
  EXPECT_NE(*kind, LinkKind::kCopy);
  EXPECT_EQ(Entries(), 2);
}

TEST_F(LinkOrCopyTest, AFileThatHasASecondNameGetsNoThirdOne) {
  ASSERT_TRUE(LinkOrCopyFile(At("from"), At("first"), HardLinks::kIfOnlyName).ok());
  ASSERT_TRUE(LinkOrCopyFile(At("from"), At("second"), HardLinks::kIfOnlyName).ok());
  WriteInPlace(At("first"));
  EXPECT_EQ(*ReadFile(At("second")), Content());
}

TEST_F(LinkOrCopyTest, ReplacesWhatWasThere) {
  for (const HardLinks hard_links : {HardLinks::kNever, HardLinks::kAlways, HardLinks::kAlways}) {
    ASSERT_TRUE(WriteFileAtomically(At("to"), "old").ok());
    ASSERT_TRUE(LinkOrCopyFile(At("from"), At("to"), hard_links).ok());
    ASSERT_TRUE(LinkOrCopyFile(At("from"), At("to"), hard_links).ok());  // Also when it is the same file already.
    EXPECT_EQ(*ReadFile(At("to")), Content());
    EXPECT_EQ(Entries(), 2);
  }
}

TEST_F(LinkOrCopyTest, FollowsALinkToTheFile) {
  fs::create_symlink(At("from"), At("symbolic"));
  ASSERT_TRUE(LinkOrCopyFile(At("symbolic"), At("to"), HardLinks::kAlways).ok());
  EXPECT_FALSE(fs::is_symlink(At("to")));
  EXPECT_EQ(*ReadFile(At("to")), Content());
}

TEST_F(LinkOrCopyTest, CopiesBetweenFileSystems) {
  if (!fs::is_directory("/dev/shm")) GTEST_SKIP() << "there is no second file system";
  const fs::path other = fs::path("/dev/shm") / (folder_->path().filename().string() + "-other");
  const auto kind = LinkOrCopyFile(At("from"), other, HardLinks::kAlways);
  ASSERT_TRUE(kind.ok()) << kind.status();
  EXPECT_EQ(*ReadFile(other), Content());
  fs::remove(other);
}

TEST_F(LinkOrCopyTest, AnEmptyFileIsCopied) {
  ASSERT_TRUE(WriteFileAtomically(At("empty"), "").ok());
  ASSERT_TRUE(LinkOrCopyFile(At("empty"), At("to"), HardLinks::kNever).ok());
  EXPECT_EQ(*ReadFile(At("to")), "");
}

TEST_F(LinkOrCopyTest, RefusesWhatIsNoFile) {
  EXPECT_EQ(LinkOrCopyFile(At("none"), At("to"), HardLinks::kAlways).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LinkOrCopyFile(folder_->path(), At("to"), HardLinks::kAlways).status().code(),
            absl::StatusCode::kInvalidArgument);
  fs::create_directory(At("folder"));
  EXPECT_EQ(LinkOrCopyFile(At("from"), At("folder"), HardLinks::kAlways).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LinkOrCopyFile(At("from"), At("nowhere") / "to", HardLinks::kAlways).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace gpipe
