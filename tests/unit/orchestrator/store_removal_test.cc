#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class StoreRemovalTest : public StoreTest {
 protected:
  StoreRemovalTest() { Insert(MakeJob("a")); }

  // With a model of its own.
  static CheckpointFiles CheckpointWith(int64_t step, char model) {
    CheckpointFiles files = MakeCheckpoint(step);
    files.files["model.safetensors"] = MakeRef(model, 7);
    return files;
  }
  std::vector<Store::Dropped> Add(const CheckpointFiles& files, int64_t keep, absl::Time now = absl::UnixEpoch()) {
    auto dropped = store_->AddCheckpoint("a", files, keep, now);
    EXPECT_TRUE(dropped.ok()) << dropped.status();
    return dropped.ok() ? *std::move(dropped) : std::vector<Store::Dropped>();
  }
  void End(const std::string& id, int64_t seconds) {
    v1::Job job = store_->GetJob(id)->job;
    job.set_state(v1::Job::STATE_SUCCEEDED);
    *job.mutable_end_time() = google::protobuf::util::TimeUtil::SecondsToTimestamp(seconds);
    ASSERT_TRUE(store_->UpdateJob(job).ok());
  }
  static std::vector<char> Digits(const std::vector<v1::ArtifactRef>& refs) {
    std::vector<char> digits;
    for (const v1::ArtifactRef& ref : refs) digits.push_back(ref.sha256()[0]);
    return digits;
  }
  std::vector<std::string> ResultsOf(const std::string& id) {
    std::vector<std::string> paths;
    const StoredJob stored = *store_->GetJob(id);
    for (const v1::ResultFile& file : stored.job.results()) paths.push_back(file.path());
    return paths;
  }
};

TEST_F(StoreRemovalTest, OnlyTheNewestCheckpointsAreKept) {
  const absl::Time first = absl::FromUnixSeconds(100);
  EXPECT_THAT(Add(CheckpointWith(10, '1'), 2, first), IsEmpty());
  EXPECT_THAT(Add(CheckpointWith(20, '2'), 2), IsEmpty());
  const auto dropped = Add(CheckpointWith(30, '3'), 2);
  ASSERT_EQ(dropped.size(), 1u);
  EXPECT_THAT(Digits(dropped[0].files), UnorderedElementsAre('a', '1', 'c'));
  EXPECT_EQ(dropped[0].since, first);
  EXPECT_EQ((*store_->LatestCheckpoint("a"))->step, 30);
  EXPECT_EQ(ResultsOf("a").size(), 6u);
  EXPECT_THAT(ResultsOf("a"), testing::Not(testing::Contains("checkpoints/10/manifest.json")));
}

TEST_F(StoreRemovalTest, WithoutALimitAllCheckpointsAreKept) {
  for (int step = 1; step <= 5; ++step) EXPECT_THAT(Add(MakeCheckpoint(step), 0), IsEmpty());
  EXPECT_EQ(ResultsOf("a").size(), 15u);
}

TEST_F(StoreRemovalTest, AFileThatAnyJobHasIsNotWithoutOne) {
  StoredJob b = MakeJob("b");
  b.files["data"] = MakeRef('d', 1);
  b.resume = MakeCheckpoint(7);
  b.resume->manifest = MakeRef('e', 1);
  b.resume->files["model.safetensors"] = MakeRef('f', 1);
  Insert(b);
  Add(CheckpointWith(10, '1'), 0);
  v1::ResultFile result;
  result.set_path("model.safetensors");
  *result.mutable_artifact() = MakeRef('2', 1);
  ASSERT_TRUE(store_->AddResult("a", result).ok());
  std::vector<v1::ArtifactRef> all;
  for (const char digit : {'d', 'e', 'f', '1', '2', 'a', '0'}) all.push_back(MakeRef(digit, 1));
  const auto without = store_->WithoutJob(all);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_THAT(Digits(*without), ElementsAre('0'));
}

TEST_F(StoreRemovalTest, ADeletedJobLeavesNothing) {
  StoredJob b = MakeJob("b", "request");
  b.files["data"] = MakeRef('d', 1);
  Insert(b);
  Add(CheckpointWith(10, '1'), 0);
  ASSERT_TRUE(store_->AddCheckpoint("b", CheckpointWith(10, '2')).ok());
  ASSERT_TRUE(store_->AppendEvent("b", {}).ok());
  v1::StepMetrics metrics;
  for (int step = 0; step < 5; ++step) {
    metrics.set_step(step);
    ASSERT_TRUE(store_->AppendSteps("b", {metrics}).ok());
  }
  ASSERT_TRUE(store_->AppendEvaluation("b", {}).ok());
  End("b", 200);

  EXPECT_TRUE(*store_->DropSomeMetrics("b", 3));
  EXPECT_FALSE(*store_->DropSomeMetrics("b", 3));
  const auto dropped = store_->DeleteJob("b");
  ASSERT_TRUE(dropped.ok()) << dropped.status();
  EXPECT_THAT(Digits(dropped->files), UnorderedElementsAre('d', '2', 'a', 'c'));
  EXPECT_EQ(dropped->since, absl::FromUnixSeconds(200));
  EXPECT_THAT(store_->GetJob("b").status(), IsCode(StatusCode::kNotFound));
  EXPECT_THAT(store_->DeleteJob("b").status(), IsCode(StatusCode::kNotFound));
  EXPECT_FALSE(store_->FindRequest("request")->has_value());
  EXPECT_EQ(ResultsOf("a").size(), 3u);
  // The next job takes none of its rows over.
  Insert(MakeJob("b"));
  EXPECT_THAT(store_->ListSteps("b", 0, "")->items, IsEmpty());
  EXPECT_THAT(ResultsOf("b"), IsEmpty());
}

TEST_F(StoreRemovalTest, JobsExpireByTheirEndAndByTheirNumber) {
  for (const char* id : {"b", "c", "d", "e"}) Insert(MakeJob(id));
  End("b", 100);
  End("c", 300);
  End("d", 200);
  const auto expired = [&](int64_t before, int64_t most, int64_t limit = 10) {
    return *store_->ExpiredJobs(absl::FromUnixSeconds(before), most, limit);
  };
  EXPECT_THAT(expired(0, 10), IsEmpty());
  EXPECT_THAT(expired(250, 10), ElementsAre("b", "d"));
  EXPECT_THAT(expired(250, 10, 1), ElementsAre("b"));
  EXPECT_THAT(expired(0, 1), ElementsAre("b", "c"));
  EXPECT_THAT(expired(0, 0), ElementsAre("b", "c", "d"));
  EXPECT_THAT(*store_->ExpiredJobs(absl::InfinitePast(), 10, 10), IsEmpty());
}

TEST_F(StoreRemovalTest, OldStepsAreThinnedOut) {
  v1::StepMetrics metrics;
  const auto add = [&](int64_t step) {
    metrics.set_step(step);
    ASSERT_TRUE(store_->AppendSteps("a", {metrics}).ok());
  };
  for (int step = 99; step <= 102; ++step) add(step);
  for (int step = 99; step <= 101; ++step) add(Store::kAllSteps + step);
  std::vector<int64_t> steps;
  const auto page = store_->ListSteps("a", 0, "");
  for (const v1::StepMetrics& step : page->items) steps.push_back(step.step());
  EXPECT_THAT(steps, ElementsAre(100, 102, Store::kAllSteps + 99, Store::kAllSteps + 100, Store::kAllSteps + 101));
}

TEST_F(StoreRemovalTest, OfManyEventsTheFirstAndTheLastAreKept) {
  auto batch = store_->Begin();
  ASSERT_TRUE(batch.ok());
  const int64_t all = Store::kMaxEvents + 50;
  for (int64_t i = 0; i < all; ++i) ASSERT_TRUE(store_->AppendEvent("a", {}).ok());
  ASSERT_TRUE(batch->Commit().ok());
  std::vector<int64_t> kept;
  std::string token;
  do {
    auto page = store_->ListEvents("a", 1000, token);
    ASSERT_TRUE(page.ok());
    for (const v1::JobEvent& event : page->items) kept.push_back(event.sequence());
    token = page->next_page_token;
  } while (!token.empty());
  EXPECT_EQ(static_cast<int64_t>(kept.size()), Store::kMaxEvents);
  EXPECT_EQ(kept[Store::kFirstEvents - 1], Store::kFirstEvents);
  EXPECT_EQ(kept[Store::kFirstEvents], Store::kFirstEvents + 51);
  EXPECT_EQ(kept.back(), all);
}

}  // namespace
}  // namespace gpipe::orchestrator
