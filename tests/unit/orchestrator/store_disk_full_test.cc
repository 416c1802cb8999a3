#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "orchestrator/artifacts/artifact_store.h"
#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

constexpr int kNotAllowed = 77;

// Puts a file system of 4 MiB over the folder, seen by this process only.
bool MountSmallDisk(const std::filesystem::path& folder) {
  if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=4m") == 0;
}

// Runs `check` in a child process on a small disk; it returns 0 when all is well, else the number of what is not.
void OnSmallDisk(int (*check)(const std::filesystem::path&)) {
  TemporaryFolder folder = *TemporaryFolder::Create("store_disk_full_test");
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(MountSmallDisk(folder.path()) ? check(folder.path()) : kNotAllowed);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNotAllowed) GTEST_SKIP() << "mounting a small disk is not allowed here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

int FillStore(const std::filesystem::path& folder) {
  auto store = Store::Open(folder);
  if (!store.ok()) return 1;
  if (!(*store)->InsertJob(MakeJob("before")).ok()) return 2;
  StoredJob big = MakeJob("big");
  big.job.set_reason(std::string(8 << 20, 'x'));
  if (!absl::IsResourceExhausted((*store)->InsertJob(big).status())) return 3;
  if (!absl::IsNotFound((*store)->GetJob("big").status())) return 4;
  if (!(*store)->InsertJob(MakeJob("after")).ok()) return 5;

  // In a batch the error must not let half of it be committed.
  auto batch = (*store)->Begin();
  if (!batch.ok() || !(*store)->InsertJob(MakeJob("in batch")).ok()) return 6;
  if (!absl::IsResourceExhausted((*store)->InsertJob(big).status())) return 7;
  bool usable = (*store)->InsertJob(MakeJob("in batch too")).ok();
  bool committed = batch->Commit().ok();
  if (usable != committed) return 8;
  if ((*store)->GetJob("in batch").ok() != committed || (*store)->GetJob("in batch too").ok() != committed) return 9;
  return (*store)->InsertJob(MakeJob("last")).ok() ? 0 : 10;
}

TEST(StoreDiskFullTest, AJobThatDoesNotFitIsRefusedAndTheStoreGoesOn) { OnSmallDisk(&FillStore); }

int FillArtifacts(const std::filesystem::path& folder) {
  auto store = ArtifactStore::Open(folder / "artifacts", {});
  if (!store.ok()) return 1;
  if (!absl::IsResourceExhausted((*store)->Put(std::string(8 << 20, 'x')).status())) return 2;
  return (*store)->Put(std::string(1 << 20, 'x')).ok() ? 0 : 3;  // What was half-written is gone.
}

TEST(StoreDiskFullTest, AnArtifactThatDoesNotFitLeavesItsRoom) { OnSmallDisk(&FillArtifacts); }

}  // namespace
}  // namespace gpipe::orchestrator
