#include "orchestrator/scheduling/housekeeper.h"

#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "tests/unit/orchestrator/artifact_testing.h"
#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

using absl::StatusCode;

// With the orchestrator's own threads: the loop, and the one on which files go.
class HousekeeperTest : public ArtifactTest {
 protected:
  HousekeeperTest()
      : jobs_(*Store::Open(folder_.path())),
        loop_(&clock_, 100, {.begin = [this] { return Begin(); }, .commit = [this] { return Commit(); }}) {
    Reopen({.clock = &clock_});
    housekeeper_.emplace(Housekeeper::Parts{&loop_, jobs_.get(), store_.get(), &merges_}, Housekeeper::Options{});
    thread_ = std::thread([this] { loop_.Run(); });
  }
  ~HousekeeperTest() override {
    loop_.Stop();
    thread_.join();
  }

  absl::Status Begin() {
    batch_.emplace(*jobs_->Begin());
    return absl::OkStatus();
  }
  absl::Status Commit() {
    absl::Status committed = batch_->Commit();
    batch_.reset();
    return committed;
  }

  template <typename Body>
  void OnLoop(Body body) {
    absl::Notification done;
    loop_.Post([&] {
      body();
      loop_.AfterCommit([&](const absl::Status&) { done.Notify(); });
    });
    done.WaitForNotification();
  }
  // Until the work that has been begun is done.
  void AwaitMerges() {
    absl::Notification done;
    ASSERT_TRUE(merges_.Run([&] { done.Notify(); }));
    done.WaitForNotification();
  }

  // As the orchestrator books one.
  void Checkpoint(const std::string& job, int64_t step, const std::string& model, int64_t keep) {
    const CheckpointFiles files{.step = step, .manifest = Put("manifest"), .files = {{"model", Put(model)}}};
    OnLoop([&] {
      auto dropped = jobs_->AddCheckpoint(job, files, keep, loop_.Now());
      ASSERT_TRUE(dropped.ok()) << dropped.status();
      housekeeper().Remove(*std::move(dropped));
    });
    AwaitMerges();
  }
  void Insert(const std::string& id, v1::Job::State state, const FileMap& files = {}) {
    OnLoop([&] {
      StoredJob job = MakeJob(id);
      job.files = files;
      ASSERT_TRUE(jobs_->InsertJob(job).ok());
      job.job.set_state(state);
      *job.job.mutable_end_time() =
          google::protobuf::util::TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(loop_.Now()));
      ASSERT_TRUE(jobs_->UpdateJob(job.job).ok());
    });
  }
  absl::Status Delete(const std::string& id) {
    absl::Status status;
    absl::Notification done;
    loop_.Post([&] {
      housekeeper().Delete(id, [&](const absl::Status& deleted) {
        status = deleted;
        done.Notify();
      });
    });
    done.WaitForNotification();
    AwaitMerges();
    return status;
  }
  bool IsHere(const std::string& content) { return store_->Has(RefOf(content)); }
  Housekeeper& housekeeper() { return *housekeeper_; }

  SteadyClock clock_;
  std::unique_ptr<Store> jobs_;
  std::optional<Store::Batch> batch_;
  EventLoop loop_;
  BackgroundThread merges_{"merges", 100};
  std::optional<Housekeeper> housekeeper_;
  std::thread thread_;
};

TEST_F(HousekeeperTest, FilesOfOldCheckpointsGo) {
  Insert("a", v1::Job::STATE_RUNNING);
  for (int step = 1; step <= 20; ++step) Checkpoint("a", step, absl::StrCat("model ", step), 2);
  EXPECT_EQ(CountFiles(), 3);  // Two models, and one manifest that all have.
  EXPECT_TRUE(IsHere("model 20") && IsHere("model 19") && IsHere("manifest"));
}

TEST_F(HousekeeperTest, WhatAnotherCheckpointOrJobHasStays) {
  Insert("a", v1::Job::STATE_RUNNING);
  Insert("b", v1::Job::STATE_SUCCEEDED, {{"weights", Put("model 2")}});
  Checkpoint("a", 1, "model", 1);
  Checkpoint("a", 2, "model", 1);
  Checkpoint("a", 3, "model 2", 1);
  EXPECT_FALSE(IsHere("model"));
  Checkpoint("a", 4, "model 4", 1);
  EXPECT_TRUE(IsHere("model 2"));
  EXPECT_TRUE(Delete("b").ok());
  EXPECT_FALSE(IsHere("model 2"));
}

TEST_F(HousekeeperTest, WhatAClientHasClaimedSinceStays) {
  Insert("a", v1::Job::STATE_RUNNING);
  Checkpoint("a", 1, "model 1", 1);
  EXPECT_TRUE(store_->Claim(RefOf("model 1")).ok());
  Checkpoint("a", 2, "model 2", 1);
  EXPECT_TRUE(IsHere("model 1"));
}

TEST_F(HousekeeperTest, ADeletedJobTakesItsFilesWithIt) {
  Insert("a", v1::Job::STATE_SUCCEEDED, {{"data", Put("data")}});
  ASSERT_TRUE(Delete("a").ok());
  EXPECT_FALSE(IsHere("data"));
  EXPECT_THAT(Delete("a"), HasCode(StatusCode::kNotFound));
}

TEST_F(HousekeeperTest, AJobThatIsNotOverIsNotDeleted) {
  Insert("a", v1::Job::STATE_RUNNING, {{"data", Put("data")}});
  EXPECT_THAT(Delete("a"), HasCode(StatusCode::kFailedPrecondition));
  EXPECT_TRUE(IsHere("data"));
}

// A file whose job goes while another one with it is being stored must not go with the first.
TEST_F(HousekeeperTest, AJobThatIsStoredInTheSameBatchKeepsItsFiles) {
  Insert("a", v1::Job::STATE_SUCCEEDED, {{"data", Put("data")}});
  OnLoop([&] {
    housekeeper().Delete("a", [](const absl::Status& deleted) { EXPECT_TRUE(deleted.ok()); });
    StoredJob b = MakeJob("b");
    b.files = {{"data", RefOf("data")}};
    ASSERT_TRUE(jobs_->InsertJob(b).ok());
  });
  AwaitMerges();
  EXPECT_TRUE(IsHere("data"));
}

}  // namespace
}  // namespace gpipe::orchestrator
