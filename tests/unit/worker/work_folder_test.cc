#include "worker/work_folder.h"

#include <stdlib.h>

#include <filesystem>

#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

class WorkFolderTest : public testing::Test {
 protected:
  WorkFolderTest() : base_(*TemporaryFolder::Create("work-folder-test")) {
    setenv("TMPDIR", base_.path().c_str(), /*overwrite=*/1);
  }
  ~WorkFolderTest() override { unsetenv("TMPDIR"); }

  const TemporaryFolder base_;
};

TEST_F(WorkFolderTest, APrivateFolderGoesWithTheWorker) {
  std::filesystem::path path;
  {
    const WorkFolder folder = *WorkFolder::Create("", "w");
    path = folder.path();
    EXPECT_TRUE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(WorkFolderTest, FoldersOfKilledWorkersAreRemovedAndThoseInUseStay) {
  const std::filesystem::path killed = base_.path() / "gpipe-worker-killed";
  std::filesystem::create_directory(killed);
  ASSERT_TRUE(WriteFileAtomically(killed / "lock", "12345").ok());
  const WorkFolder alive = *WorkFolder::Create("", "w0");
  EXPECT_FALSE(std::filesystem::exists(killed));
  const WorkFolder other = *WorkFolder::Create("", "w1");
  EXPECT_TRUE(std::filesystem::exists(alive.path()));
}

TEST_F(WorkFolderTest, WorkersMayShareAParentButNotAName) {
  const std::filesystem::path parent = base_.path() / "shared";
  const WorkFolder first = *WorkFolder::Create(parent, "w0");
  EXPECT_TRUE(WorkFolder::Create(parent, "w1").ok());
  EXPECT_EQ(WorkFolder::Create(parent, "w0").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(WorkFolderTest, AGivenFolderIsKept) {
  std::filesystem::path path;
  {
    path = WorkFolder::Create(base_.path() / "given", "w0")->path();
  }
  EXPECT_TRUE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace gpipe::worker
