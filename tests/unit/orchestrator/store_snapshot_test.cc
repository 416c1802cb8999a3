#include <vector>

#include "orchestrator/jobs/snapshot.h"
#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;

class StoreSnapshotTest : public StoreTest {
 protected:
  absl::Status Take() { return WriteSnapshot(folder_.path() / Store::kDatabaseFile, snapshot_); }
  // First digit of each file's digest.
  std::vector<char> Files() {
    std::vector<char> files;
    EXPECT_TRUE(VisitFiles(snapshot_, [&files](const v1::ArtifactRef& file) {
                  files.push_back(file.sha256()[0]);
                  return absl::OkStatus();
                }).ok());
    return files;
  }
  const std::filesystem::path snapshot_ = folder_.path() / "restored" / Store::kDatabaseFile;
};

TEST_F(StoreSnapshotTest, HasWhatWasStoredAndNotWhatIsBeingStored) {
  std::filesystem::create_directories(snapshot_.parent_path());
  StoredJob job = MakeJob("first");
  job.files["data"] = MakeRef('d', 4);
  job.files["shared:/data"] = v1::ArtifactRef();
  Insert(job);
  ASSERT_TRUE(store_->AddCheckpoint("first", MakeCheckpoint(5)).ok());
  ASSERT_TRUE(store_->AddDrained("w1", "old").ok());
  {
    auto batch = store_->Begin();
    ASSERT_TRUE(batch.ok());
    Insert(MakeJob("second"));
    const absl::Status taken = Take();
    ASSERT_TRUE(taken.ok()) << taken;
    ASSERT_TRUE(batch->Commit().ok()) << "a snapshot keeps nobody from writing";
  }
  EXPECT_THAT(Files(), ElementsAre('a', 'b', 'c', 'd')) << "each once, and none that is shared";
  const auto copy = Store::Open(snapshot_.parent_path());
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->GetJob("first")->job.checkpoint_step(), 5);
  EXPECT_TRUE(absl::IsNotFound((*copy)->GetJob("second").status()));
  EXPECT_EQ((*copy)->DrainedWorkers()->size(), 1);
}

TEST_F(StoreSnapshotTest, EndsWithTheFirstErrorOfWhoVisits) {
  std::filesystem::create_directories(snapshot_.parent_path());
  Insert(MakeJob("first"));
  ASSERT_TRUE(store_->AddCheckpoint("first", MakeCheckpoint(5)).ok());
  ASSERT_TRUE(Take().ok());
  int visited = 0;
  const absl::Status status = VisitFiles(snapshot_, [&](const v1::ArtifactRef&) {
    ++visited;
    return absl::CancelledError("enough");
  });
  EXPECT_THAT(status, IsCode(absl::StatusCode::kCancelled));
  EXPECT_EQ(visited, 1);
}

TEST_F(StoreSnapshotTest, AFileThatIsThereIsNotWrittenOver) {
  std::filesystem::create_directories(snapshot_.parent_path());
  ASSERT_TRUE(Take().ok());
  EXPECT_FALSE(Take().ok());
}

}  // namespace
}  // namespace gpipe::orchestrator
