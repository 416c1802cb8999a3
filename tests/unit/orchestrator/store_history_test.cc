#include "SQLiteCpp/SQLiteCpp.h"
#include "orchestrator/jobs/schema.h"
#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::IsEmpty;

class StoreHistoryTest : public StoreTest {
 protected:
  StoreHistoryTest() {
    Insert(MakeJob("a"));
    Insert(MakeJob("b"));
  }

  void AddStep(int64_t step, double loss) {
    v1::StepMetrics metrics;
    metrics.set_step(step);
    metrics.set_loss(loss);
    ASSERT_TRUE(store_->AppendSteps("a", {metrics}).ok());
  }

  void AddEvaluation(int64_t step) {
    v1::EvaluationMetrics metrics;
    metrics.set_step(step);
    ASSERT_TRUE(store_->AppendEvaluation("a", metrics).ok());
  }

  std::vector<int64_t> Steps() {
    std::vector<int64_t> steps;
    auto page = store_->ListSteps("a", 0, "");
    for (const v1::StepMetrics& metrics : page->items) steps.push_back(metrics.step());
    return steps;
  }

  std::vector<int64_t> Evaluations() {
    std::vector<int64_t> steps;
    auto evaluations = store_->ListEvaluations("a");
    for (const v1::EvaluationMetrics& metrics : *evaluations) steps.push_back(metrics.step());
    return steps;
  }
};

TEST_F(StoreHistoryTest, EventsAreNumberedPerJobAndComeBackWhole) {
  v1::JobEvent event;
  event.mutable_time()->set_seconds(1700000000);
  event.mutable_time()->set_nanos(123456789);
  event.set_attempt(2);
  event.set_state(v1::Job::STATE_RUNNING);
  event.set_actor("client");
  event.set_message("it runs");
  ASSERT_TRUE(store_->AppendEvent("b", event).ok());
  ASSERT_TRUE(store_->AppendEvent("a", {}).ok());
  auto second = store_->AppendEvent("a", event);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->sequence(), 2);
  Reopen();

  auto events = store_->ListEvents("a", 0, "");
  ASSERT_TRUE(events.ok());
  ASSERT_EQ(events->items.size(), 2u);
  event.set_sequence(2);
  EXPECT_TRUE(Same(events->items[1], event)) << events->items[1].DebugString();
}

TEST_F(StoreHistoryTest, EventsComeInPages) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(store_->AppendEvent("a", {}).ok());
  std::vector<int64_t> seen;
  std::string token;
  do {
    auto page = store_->ListEvents("a", 2, token);
    ASSERT_TRUE(page.ok());
    for (const v1::JobEvent& event : page->items) seen.push_back(event.sequence());
    token = page->next_page_token;
  } while (!token.empty());
  EXPECT_THAT(seen, ElementsAre(1, 2, 3, 4, 5));
}

TEST_F(StoreHistoryTest, StepsComeInPagesFromOne) {
  for (int step = 1; step <= 5; ++step) AddStep(step, step);
  auto page = store_->ListSteps("a", 3, "");
  ASSERT_EQ(page->items.size(), 3u);
  EXPECT_EQ(page->items[0].step(), 1);
  auto rest = store_->ListSteps("a", 3, page->next_page_token);
  ASSERT_EQ(rest->items.size(), 2u);
  EXPECT_EQ(rest->items[1].step(), 5);
  EXPECT_EQ(rest->next_page_token, "");
}

TEST_F(StoreHistoryTest, AStepDoneAgainReplacesItsEntry) {
  AddStep(1, 0.5);
  AddStep(1, 0.25);
  auto steps = store_->ListSteps("a", 0, "");
  ASSERT_EQ(steps->items.size(), 1u);
  EXPECT_EQ(steps->items[0].loss(), 0.25);
}

TEST_F(StoreHistoryTest, ARestartForgetsWhatItWillMeasureAgain) {
  for (int step = 1; step <= 4; ++step) AddStep(step, 0);
  AddEvaluation(2);
  AddEvaluation(4);
  ASSERT_TRUE(store_->DropMetricsAfter("a", 2).ok());
  EXPECT_THAT(Steps(), ElementsAre(1, 2));
  EXPECT_THAT(Evaluations(), ElementsAre(2));
}

TEST_F(StoreHistoryTest, TheLatestCheckpointIsTheOneWithTheMostSteps) {
  EXPECT_FALSE(store_->LatestCheckpoint("a")->has_value());
  for (int64_t step : {20, 30, 10}) ASSERT_TRUE(store_->AddCheckpoint("a", MakeCheckpoint(step)).ok());
  Reopen();
  auto latest = store_->LatestCheckpoint("a");
  ASSERT_TRUE(latest.ok() && latest->has_value());
  EXPECT_EQ((*latest)->step, 30);
  EXPECT_TRUE(Same((*latest)->files.at("model.safetensors"), MakeRef('b', 2)));
  EXPECT_EQ(store_->GetJob("a")->job.checkpoint_step(), 30);
  EXPECT_FALSE(store_->LatestCheckpoint("b")->has_value());
}

TEST_F(StoreHistoryTest, ACheckpointOfTheSameStepReplacesAllFilesOfTheEarlierOne) {
  const FileMap shards = {{"model-00001-of-00002.safetensors", MakeRef('d', 4)},
                          {"model-00002-of-00002.safetensors", MakeRef('e', 5)},
                          {"model.safetensors.index.json", MakeRef('f', 6)},
                          {"optimizer.safetensors", MakeRef('c', 3)}};
  ASSERT_TRUE(store_->AddCheckpoint("a", {20, MakeRef('a', 1), shards}).ok());
  const auto latest = store_->LatestCheckpoint("a");
  ASSERT_TRUE(latest.ok() && latest->has_value());
  ASSERT_EQ((*latest)->files.size(), 4u);
  EXPECT_TRUE(Same((*latest)->files.at("model-00002-of-00002.safetensors"), MakeRef('e', 5)));
  EXPECT_EQ(store_->GetJob("a")->job.results_size(), 5);

  ASSERT_TRUE(store_->AddCheckpoint("a", MakeCheckpoint(200)).ok());
  ASSERT_TRUE(store_->AddCheckpoint("a", MakeCheckpoint(20)).ok());
  std::vector<std::string> paths;
  const StoredJob stored = *store_->GetJob("a");
  for (const v1::ResultFile& file : stored.job.results()) paths.push_back(file.path());
  EXPECT_THAT(paths, ElementsAre("checkpoints/20/manifest.json", "checkpoints/20/model.safetensors",
                                 "checkpoints/20/optimizer.safetensors", "checkpoints/200/manifest.json",
                                 "checkpoints/200/model.safetensors", "checkpoints/200/optimizer.safetensors"));
}

TEST_F(StoreHistoryTest, CheckpointsOfADatabaseFromBeforeTheyHadSeveralFilesAreKept) {
  store_.reset();
  std::filesystem::remove(folder_.path() / "gpipe.db");
  {
    SQLite::Database old((folder_.path() / "gpipe.db").string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    ASSERT_TRUE(Migrate(old, 2).ok());
    old.exec(
        "INSERT INTO jobs (sequence, id, fingerprint, create_time_nanos, state, spec, message)"
        " VALUES (1, 'old', 'f', 0, 1, x'', x'');"
        "INSERT INTO checkpoints VALUES (1, 20, 'aa', 1, 'bb', 2, 'cc', 3);"
        "INSERT INTO resumes VALUES (1, 7, 'dd', 4, 'ee', 5, 'ff', 6)");
  }
  Reopen();
  const auto latest = store_->LatestCheckpoint("old");
  ASSERT_TRUE(latest.ok() && latest->has_value()) << latest.status();
  EXPECT_EQ((*latest)->manifest.sha256(), "aa");
  EXPECT_EQ((*latest)->files.at("model.safetensors").sha256(), "bb");
  EXPECT_EQ((*latest)->files.at("optimizer.safetensors").size(), 3);
  const auto job = store_->GetJob("old");
  ASSERT_TRUE(job.ok() && job->resume.has_value()) << job.status();
  EXPECT_EQ(job->resume->step, 7);
  EXPECT_EQ(job->resume->files.at("model.safetensors").sha256(), "ee");
  EXPECT_EQ(job->resume->files.at("optimizer.safetensors").size(), 6);
  ASSERT_TRUE(store_->AddCheckpoint("old", MakeCheckpoint(20)).ok());
}

TEST_F(StoreHistoryTest, StepsOfADatabaseThatCountedThemFromZeroAreCountedFromOne) {
  store_.reset();
  std::filesystem::remove(folder_.path() / "gpipe.db");
  {
    SQLite::Database old((folder_.path() / "gpipe.db").string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    ASSERT_TRUE(Migrate(old, 4).ok());
    old.exec(
        "INSERT INTO jobs (sequence, id, fingerprint, create_time_nanos, state, spec, message)"
        " VALUES (1, 'a', 'f', 0, 1, x'', x'');"
        "INSERT INTO step_metrics VALUES (1, 0, x''), (1, 1, x''), (1, 2, x'')");
  }
  Reopen();
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3));
  AddStep(3, 0.5);
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3));
}

TEST_F(StoreHistoryTest, ResultsAreThoseAddedAndTheFilesOfCheckpoints) {
  ASSERT_TRUE(store_->AddCheckpoint("a", MakeCheckpoint(20)).ok());
  v1::ResultFile result;
  result.set_path("metrics.jsonl");
  *result.mutable_artifact() = MakeRef('1', 1);
  ASSERT_TRUE(store_->AddResult("a", result).ok());
  *result.mutable_artifact() = MakeRef('2', 2);
  ASSERT_TRUE(store_->AddResult("a", result).ok());

  std::vector<std::string> paths;
  v1::Job job = store_->GetJob("a")->job;
  for (const v1::ResultFile& file : job.results()) paths.push_back(file.path());
  EXPECT_THAT(paths, ElementsAre("checkpoints/20/manifest.json", "checkpoints/20/model.safetensors",
                                 "checkpoints/20/optimizer.safetensors", "metrics.jsonl"));
  EXPECT_TRUE(Same(job.results(3).artifact(), MakeRef('2', 2)));
  EXPECT_THAT(store_->GetJob("b")->job.results(), IsEmpty());
}

TEST_F(StoreHistoryTest, AListHasResultsOnlyWhenAsked) {
  ASSERT_TRUE(store_->AddCheckpoint("a", MakeCheckpoint(20)).ok());
  for (const bool asked : {false, true}) {
    const auto page = store_->ListJobs(0, "", {}, asked);
    ASSERT_TRUE(page.ok());
    for (const v1::Job& job : page->items) {
      EXPECT_EQ(job.results_size(), asked && job.id() == "a" ? 3 : 0);
      EXPECT_EQ(job.checkpoint_step(), job.id() == "a" ? 20 : 0);
    }
  }
}

TEST_F(StoreHistoryTest, AnUpdateKeepsResultsAndCheckpointStep) {
  v1::Job before = store_->GetJob("a")->job;
  ASSERT_TRUE(store_->AddCheckpoint("a", MakeCheckpoint(20)).ok());
  ASSERT_TRUE(store_->UpdateJob(before).ok());
  EXPECT_EQ(store_->GetJob("a")->job.checkpoint_step(), 20);
  EXPECT_EQ(store_->GetJob("a")->job.results_size(), 3);
}

TEST_F(StoreHistoryTest, EveryMethodNamesAJobThatIsNotThere) {
  const absl::Status statuses[] = {
      store_->AppendEvent("x", {}).status(),  store_->ListEvents("x", 0, "").status(),
      store_->AppendSteps("x", {}),           store_->ListSteps("x", 0, "").status(),
      store_->AppendEvaluation("x", {}),      store_->ListEvaluations("x").status(),
      store_->DropMetricsAfter("x", 0),       store_->AddCheckpoint("x", MakeCheckpoint(1)).status(),
      store_->LatestCheckpoint("x").status(), store_->AddResult("x", {}),
  };
  for (const absl::Status& status : statuses) {
    EXPECT_THAT(status, IsCode(StatusCode::kNotFound)) << status;
    EXPECT_EQ(status.message(), "no job 'x'");
  }
}

}  // namespace
}  // namespace gpipe::orchestrator
