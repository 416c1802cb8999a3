#include <set>

#include "orchestrator/jobs/job_state.h"
#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using v1::Job;

std::vector<std::string> Ids(const std::vector<StoredJob>& jobs) {
  std::vector<std::string> ids;
  for (const StoredJob& stored : jobs) ids.push_back(stored.job.id());
  return ids;
}

std::vector<std::string> Ids(const Page<Job>& page) {
  std::vector<std::string> ids;
  for (const Job& job : page.items) ids.push_back(job.id());
  return ids;
}

class StoreJobsTest : public StoreTest {
 protected:
  void Move(const std::string& id, Job::State state) {
    Job job = store_->GetJob(id)->job;
    job.set_state(state);
    ASSERT_TRUE(store_->UpdateJob(job).ok());
  }
};

TEST_F(StoreJobsTest, AJobComesBackWholeAfterReopening) {
  StoredJob stored = MakeJob("a", "r");
  stored.job.set_reason("waiting");
  stored.job.add_workers("w0");
  stored.job.mutable_failure()->set_code("STALLED");
  stored.files = {{"x.safetensors", MakeRef('1', 10)}, {"sub/y", MakeRef('2', 0)}};
  stored.resume = MakeCheckpoint(7);
  Insert(stored);
  Reopen();

  auto found = store_->GetJob("a");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(Same(found->job, stored.job)) << found->job.DebugString();
  EXPECT_EQ(found->request_id, "r");
  EXPECT_EQ(found->fingerprint, "f");
  EXPECT_EQ(found->sequence, 1);
  ASSERT_EQ(found->files.size(), 2u);
  EXPECT_TRUE(Same(found->files["x.safetensors"], MakeRef('1', 10)));
  ASSERT_TRUE(found->resume.has_value());
  EXPECT_EQ(found->resume->step, 7);
  EXPECT_EQ(found->resume->files.size(), 2u);
  EXPECT_TRUE(Same(found->resume->files.at("optimizer.safetensors"), MakeRef('c', 3)));
}

TEST_F(StoreJobsTest, AnUnknownJobIsNotFoundByName) {
  auto found = store_->GetJob("nobody");
  EXPECT_THAT(found.status(), IsCode(StatusCode::kNotFound));
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("nobody"));
  EXPECT_THAT(store_->UpdateJob(MakeJob("nobody").job), IsCode(StatusCode::kNotFound));
}

TEST_F(StoreJobsTest, ARepeatedRequestGetsTheJobAsItIsNow) {
  Insert(MakeJob("a", "r"));
  Move("a", Job::STATE_STARTING);
  auto again = store_->InsertJob(MakeJob("b", "r"));
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->created);
  EXPECT_EQ(again->job.job.id(), "a");
  EXPECT_EQ(again->job.job.state(), Job::STATE_STARTING);
  EXPECT_THAT(store_->GetJob("b").status(), IsCode(StatusCode::kNotFound));
  EXPECT_EQ((*store_->FindRequest("r"))->job.id(), "a");
  EXPECT_FALSE(store_->FindRequest("other")->has_value());
}

TEST_F(StoreJobsTest, AnotherRequestUnderTheSameIdIsRefused) {
  Insert(MakeJob("a", "r"));
  StoredJob other = MakeJob("b", "r");
  other.fingerprint = "g";
  EXPECT_THAT(store_->InsertJob(other).status(), IsCode(StatusCode::kAlreadyExists));
}

TEST_F(StoreJobsTest, WithoutARequestIdEverySubmissionIsNew) {
  Insert(MakeJob("a"));
  Insert(MakeJob("b"));
  EXPECT_FALSE(store_->FindRequest("")->has_value());
}

TEST_F(StoreJobsTest, ATakenIdIsToBeChosenAnew) {
  Insert(MakeJob("a"));
  EXPECT_THAT(store_->InsertJob(MakeJob("a")).status(), IsCode(StatusCode::kAborted));
}

TEST_F(StoreJobsTest, ATerminalStateIsForEver) {
  Insert(MakeJob("a"));
  Move("a", Job::STATE_CANCELLED);
  Job job = store_->GetJob("a")->job;
  job.set_state(Job::STATE_QUEUED);
  EXPECT_THAT(store_->UpdateJob(job), IsCode(StatusCode::kFailedPrecondition));
  EXPECT_EQ(store_->GetJob("a")->job.state(), Job::STATE_CANCELLED);
}

TEST_F(StoreJobsTest, AnUpdateLeavesTheSpecAlone) {
  Insert(MakeJob("a"));
  Job job;
  job.set_id("a");
  job.set_state(Job::STATE_RUNNING);
  job.set_steps_done(3);
  ASSERT_TRUE(store_->UpdateJob(job).ok());
  Job found = store_->GetJob("a")->job;
  EXPECT_EQ(found.spec().name(), "name of a");
  EXPECT_EQ(found.create_time().seconds(), 1700000000);
  EXPECT_EQ(found.steps_done(), 3);
}

TEST_F(StoreJobsTest, ListsNewestFirstInPages) {
  for (const char* id : {"a", "b", "c", "d", "e"}) Insert(MakeJob(id));
  auto first = store_->ListJobs(2, "", {});
  ASSERT_TRUE(first.ok());
  EXPECT_THAT(Ids(*first), ElementsAre("e", "d"));
  Insert(MakeJob("f"));  // What comes in between does not shift the pages.
  auto second = store_->ListJobs(2, first->next_page_token, {});
  EXPECT_THAT(Ids(*second), ElementsAre("c", "b"));
  auto third = store_->ListJobs(2, second->next_page_token, {});
  EXPECT_THAT(Ids(*third), ElementsAre("a"));
  EXPECT_EQ(third->next_page_token, "");
}

TEST_F(StoreJobsTest, APageThatEndsTheListHasNoToken) {
  for (const char* id : {"a", "b"}) Insert(MakeJob(id));
  EXPECT_EQ(store_->ListJobs(2, "", {})->next_page_token, "");
}

TEST_F(StoreJobsTest, ListsByState) {
  for (const char* id : {"a", "b", "c"}) Insert(MakeJob(id));
  Move("b", Job::STATE_RUNNING);
  Move("c", Job::STATE_FAILED);
  EXPECT_THAT(Ids(*store_->ListJobs(0, "", {Job::STATE_RUNNING, Job::STATE_FAILED})), ElementsAre("c", "b"));
  EXPECT_THAT(Ids(*store_->ListJobs(0, "", {Job::STATE_PAUSED})), IsEmpty());
}

TEST_F(StoreJobsTest, BadPagesAreRefused) {
  EXPECT_THAT(store_->ListJobs(-1, "", {}).status(), IsCode(StatusCode::kInvalidArgument));
  EXPECT_THAT(store_->ListJobs(1, "", {static_cast<Job::State>(99)}).status(), IsCode(StatusCode::kInvalidArgument));
  for (const char* token : {"x", "-3", "1e9", "99999999999999999999"}) {
    EXPECT_THAT(store_->ListJobs(1, token, {}).status(), IsCode(StatusCode::kInvalidArgument)) << token;
  }
}

TEST_F(StoreJobsTest, TheQueueIsFirstComeFirstAndARequeuedJobKeepsItsPlace) {
  for (const char* id : {"a", "b", "c"}) Insert(MakeJob(id));
  Move("a", Job::STATE_RUNNING);
  EXPECT_THAT(Ids(*store_->QueuedJobs()), ElementsAre("b", "c"));
  Move("a", Job::STATE_QUEUED);
  EXPECT_THAT(Ids(*store_->QueuedJobs()), ElementsAre("a", "b", "c"));
}

TEST_F(StoreJobsTest, UnfinishedJobsAreThoseInNoTerminalState) {
  std::vector<std::string> expected;
  for (int state = Job::STATE_QUEUED; state < Job::State_ARRAYSIZE; ++state) {
    std::string id = Job::State_Name(static_cast<Job::State>(state));
    Insert(MakeJob(id));
    Move(id, static_cast<Job::State>(state));
    if (!IsTerminal(static_cast<Job::State>(state))) expected.push_back(id);
  }
  EXPECT_EQ(Ids(*store_->UnfinishedJobs()), expected);
}

TEST_F(StoreJobsTest, ABatchThatIsNotCommittedLeavesNothing) {
  {
    auto batch = store_->Begin();
    ASSERT_TRUE(batch.ok());
    Insert(MakeJob("a"));
  }
  EXPECT_THAT(store_->GetJob("a").status(), IsCode(StatusCode::kNotFound));
  Insert(MakeJob("a"));
}

TEST_F(StoreJobsTest, OnlyOneBatchAtATime) {
  auto batch = store_->Begin();
  ASSERT_TRUE(batch.ok());
  EXPECT_THAT(store_->Begin().status(), IsCode(StatusCode::kFailedPrecondition));
  ASSERT_TRUE(batch->Commit().ok());
  EXPECT_THAT(batch->Commit(), IsCode(StatusCode::kFailedPrecondition));
  EXPECT_TRUE(store_->Begin().ok());
}

TEST_F(StoreJobsTest, AFailedChangeLeavesItsBatchUsable) {
  Insert(MakeJob("taken"));
  auto batch = store_->Begin();
  ASSERT_TRUE(batch.ok());
  Insert(MakeJob("a"));
  EXPECT_FALSE(store_->InsertJob(MakeJob("taken")).ok());
  EXPECT_FALSE(store_->AppendEvent("nobody", {}).ok());
  Insert(MakeJob("b"));
  ASSERT_TRUE(batch->Commit().ok());
  Reopen();
  EXPECT_THAT(Ids(*store_->QueuedJobs()), ElementsAre("taken", "a", "b"));
}

// A change that fails outside a batch must not leave a transaction open that swallows the changes after it.
TEST_F(StoreJobsTest, AFailedChangeOutsideABatchDoesNotSwallowTheNext) {
  Insert(MakeJob("taken"));
  EXPECT_FALSE(store_->InsertJob(MakeJob("taken")).ok());
  Insert(MakeJob("a"));
  Reopen();
  EXPECT_TRUE(store_->GetJob("a").ok());
}

TEST_F(StoreJobsTest, AThousandSubmissionsInBatchesAreAllThere) {
  constexpr int kJobs = 1000;
  constexpr int kPerBatch = 37;
  for (int i = 0; i < kJobs;) {
    auto batch = store_->Begin();
    ASSERT_TRUE(batch.ok());
    for (int end = std::min(kJobs, i + kPerBatch); i < end; ++i) {
      Insert(MakeJob("job-" + std::to_string(i), "request-" + std::to_string(i)));
    }
    ASSERT_TRUE(batch->Commit().ok());
  }
  Reopen();
  auto queued = store_->QueuedJobs();
  ASSERT_EQ(queued->size(), static_cast<size_t>(kJobs));
  for (int i = 0; i < kJobs; ++i) EXPECT_EQ((*queued)[i].job.id(), "job-" + std::to_string(i));

  std::set<std::string> listed;
  std::string token;
  do {
    auto page = store_->ListJobs(300, token, {});
    ASSERT_TRUE(page.ok());
    for (const Job& job : page->items) EXPECT_TRUE(listed.insert(job.id()).second);
    token = page->next_page_token;
  } while (!token.empty());
  EXPECT_EQ(listed.size(), static_cast<size_t>(kJobs));
}

TEST(FingerprintTest, DependsOnTheContentAndNotOnTheOrderOfTheFiles) {
  v1::SubmitJobRequest a;
  v1::SubmitJobRequest b;
  for (int i = 0; i < 20; ++i) (*a.mutable_files())[std::to_string(i)] = MakeRef('1', i);
  for (int i = 19; i >= 0; --i) (*b.mutable_files())[std::to_string(i)] = MakeRef('1', i);
  EXPECT_EQ(Fingerprint(a), Fingerprint(b));
  b.mutable_spec()->set_name("other");
  EXPECT_NE(Fingerprint(a), Fingerprint(b));
}

}  // namespace
}  // namespace gpipe::orchestrator
