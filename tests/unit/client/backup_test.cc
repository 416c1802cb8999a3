#include "client/api/backup.h"

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/api/backup_target.h"
#include "common/file.h"
#include "common/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class BackupTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(backup_); }
  // A file of the backup, with its line among the sums.
  void Add(const std::string& path, const std::string& content) {
    fs::create_directories((backup_ / path).parent_path());
    std::ofstream(backup_ / path) << content;
    Sha256 hash;
    hash.Update(content);
    AddSum(hash.HexDigest(), path);
  }
  void AddSum(const std::string& digest, const std::string& path) {
    std::ofstream(backup_ / "SHA256SUMS", std::ios::app) << digest << "  " << path << "\n";
  }
  absl::Status Restore() { return RestoreBackup(backup_, state_).status(); }
  std::string Content(const fs::path& path) { return ReadFile(path).value_or("nothing"); }

  TemporaryFolder folder_ = *TemporaryFolder::Create("backup_test");
  const fs::path backup_ = folder_.path() / "backup", state_ = folder_.path() / "state";
};

TEST_F(BackupTest, AStateFolderIsMadeOfAllThatIsListed) {
  Add("gpipe.db", "jobs");
  Add("artifacts/ab/abc", std::string(3 << 20, 'x'));
  std::ofstream(backup_ / "something else") << "not listed";
  const absl::StatusOr<BackupSize> size = RestoreBackup(backup_, state_);
  ASSERT_TRUE(size.ok()) << size.status();
  EXPECT_EQ(size->files, 2);
  EXPECT_EQ(size->bytes, (3 << 20) + 4);
  EXPECT_EQ(Content(state_ / "gpipe.db"), "jobs");
  EXPECT_EQ(Content(state_ / "artifacts/ab/abc").size(), size_t{3} << 20);
  EXPECT_FALSE(fs::exists(state_ / "something else"));
}

TEST_F(BackupTest, AnEmptyStateFolderIsFilledAndAnotherOneLeftAlone) {
  Add("gpipe.db", "jobs");
  fs::create_directories(state_);
  EXPECT_TRUE(Restore().ok());
  const absl::Status again = Restore();
  EXPECT_TRUE(absl::IsInvalidArgument(again)) << again;
  EXPECT_THAT(std::string(again.message()), HasSubstr("is there already"));
  EXPECT_EQ(Content(state_ / "gpipe.db"), "jobs");
}

TEST_F(BackupTest, WhatIsNotWhatItWasIsNamedAndNothingIsRestored) {
  Add("gpipe.db", "jobs");
  Add("artifacts/ab/abc", "content");
  std::ofstream(backup_ / "artifacts/ab/abc") << "contend";
  EXPECT_THAT(std::string(Restore().message()), HasSubstr("artifacts/ab/abc is not what it was"));
  fs::remove(backup_ / "artifacts/ab/abc");
  EXPECT_THAT(std::string(Restore().message()), HasSubstr("the backup lacks"));
  EXPECT_FALSE(fs::exists(state_));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 1);
}

TEST_F(BackupTest, AFolderThatIsNoWholeBackupIsRefused) {
  EXPECT_THAT(std::string(Restore().message()), HasSubstr("is no whole backup"));
  Add("artifacts/ab/abc", "content");
  EXPECT_THAT(std::string(Restore().message()), HasSubstr("has no gpipe.db"));
  std::ofstream(backup_ / "SHA256SUMS", std::ios::app) << "nonsense\n";
  EXPECT_THAT(std::string(Restore().message()), HasSubstr("a line that is no sum"));
}

TEST_F(BackupTest, NoPathLeadsOutOfTheFolder) {
  Add("gpipe.db", "jobs");
  for (const char* path : {"../evil", "/etc/evil", "a/../../evil", "a\x1b[2J", "SHA256SUMS", "./gpipe.db"}) {
    fs::copy_file(backup_ / "SHA256SUMS", backup_ / "good", fs::copy_options::overwrite_existing);
    AddSum(std::string(64, 'a'), path);
    EXPECT_THAT(std::string(Restore().message()), HasSubstr("a backup has no file '")) << path;
    fs::rename(backup_ / "good", backup_ / "SHA256SUMS");
  }
  EXPECT_FALSE(fs::exists(folder_.path() / "evil"));
}

TEST_F(BackupTest, AnArchiveIsReadByTar) {
  const fs::path archive = folder_.path() / "backup.tar";
  {
    auto target = MakeTarTarget(archive);
    ASSERT_TRUE(target.ok()) << target.status();
    EXPECT_FALSE(fs::exists(archive)) << "not before it is whole";
    EXPECT_TRUE((*target)->Begin("gpipe.db", 5).ok());
    EXPECT_TRUE((*target)->Append("jo").ok());
    EXPECT_TRUE((*target)->Append("bs\n").ok());
    EXPECT_TRUE((*target)->Begin("artifacts/ab/abc", 512).ok());
    EXPECT_TRUE((*target)->Append(std::string(512, 'x')).ok());
    EXPECT_TRUE((*target)->Begin("empty", 0).ok());
    EXPECT_TRUE((*target)->Commit().ok());
  }
  EXPECT_TRUE(absl::IsInvalidArgument(MakeTarTarget(archive).status())) << "it is there";
  ASSERT_EQ(std::system(absl::StrCat("tar -xf ", archive.string(), " -C ", folder_.path().string()).c_str()), 0);
  EXPECT_EQ(Content(folder_.path() / "gpipe.db"), "jobs\n");
  EXPECT_EQ(Content(folder_.path() / "artifacts/ab/abc"), std::string(512, 'x'));
  EXPECT_EQ(Content(folder_.path() / "empty"), "");
}

}  // namespace
}  // namespace gpipe::client
