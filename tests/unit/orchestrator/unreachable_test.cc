// Workers that their peers cannot connect with: who is at fault, and what becomes of it and of the job.

#include "orchestrator/scheduling/unreachable.h"

#include <string>
#include <vector>

#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;
using v1::OrchestratorMessage;
using v1::Worker;

using Candidates = std::vector<UnreachableReports::Candidate>;

v1::Failed Naming(int peer) {
  v1::Failed failed;
  failed.mutable_status()->set_message("Connection refused");
  failed.set_unreachable_peer(peer);
  return failed;
}

Candidates Workers(int count) {
  Candidates workers;
  for (int i = 0; i < count; ++i) {
    workers.push_back({.name = absl::StrCat("w", i), .data_address = absl::StrCat("10.0.0.", i)});
  }
  return workers;
}

// Of reports (who, whom).
std::vector<int> AtFault(const std::vector<std::pair<int, int>>& named, const Candidates& workers) {
  UnreachableReports reports;
  for (const auto& [reporter, peer] : named) reports.Add(reporter, Naming(peer), static_cast<int>(workers.size()));
  std::vector<int> indices;
  for (const UnreachableWorker& worker : reports.Judge(workers)) indices.push_back(worker.index);
  return indices;
}

TEST(UnreachableReportsTest, OfTwoItIsTheOneThatIsNamedUnlessItWasReachedBefore) {
  Candidates two = Workers(2);
  EXPECT_THAT(AtFault({{0, 1}}, two), ElementsAre(1));
  EXPECT_THAT(AtFault({{0, 1}, {1, 0}}, two), ElementsAre(0, 1));
  two[1].was_reached = true;
  EXPECT_THAT(AtFault({{0, 1}}, two), ElementsAre(0)) << "whoever reaches nobody is suspect himself";
  EXPECT_THAT(AtFault({{0, 1}, {1, 0}}, two), ElementsAre(0));
  two[0].was_reached = true;
  EXPECT_THAT(AtFault({{0, 1}}, two), ElementsAre(1));
}

TEST(UnreachableReportsTest, OfMoreItIsTheOneThatMostOthersMiss) {
  EXPECT_THAT(AtFault({{0, 1}, {2, 1}}, Workers(3)), ElementsAre(1));
  EXPECT_THAT(AtFault({{0, 2}, {1, 2}, {2, 0}}, Workers(3)), ElementsAre(2))
      << "it reaches nobody and nobody reaches it";
  EXPECT_THAT(AtFault({{2, 0}}, Workers(3)), ElementsAre(2)) << "the other one reaches 0";
  EXPECT_THAT(AtFault({{3, 0}, {1, 0}}, Workers(4)), ElementsAre(0));
}

TEST(UnreachableReportsTest, AnAddressOfLoopbackIsWrongForOtherMachines) {
  Candidates workers = Workers(3);
  workers[0].data_address = workers[1].data_address = "127.0.0.1";
  EXPECT_THAT(AtFault({{2, 0}}, workers), ElementsAre(0));
}

TEST(UnreachableReportsTest, WhoCannotUseItsOwnAddressIsAtFaultAlone) {
  EXPECT_THAT(AtFault({{1, 1}, {0, 2}}, Workers(3)), ElementsAre(1));
}

TEST(UnreachableReportsTest, WhatIsNoWorkerOfTheAttemptIsNotHeard) {
  UnreachableReports reports;
  for (const int peer : {-1, 2}) reports.Add(0, Naming(peer), 2);
  reports.Add(0, v1::Failed(), 2);
  EXPECT_TRUE(reports.empty());
}

TEST(UnreachableReportsTest, SaysWhoMissesWhomAndWhere) {
  UnreachableReports reports;
  reports.Add(0, Naming(1), 3);
  reports.Add(2, Naming(1), 3);
  EXPECT_EQ(reports.Judge(Workers(3)).at(0).why,
            "peers cannot connect to its data address 10.0.0.1 (w0: Connection refused; w2: Connection refused)");
  UnreachableReports one;
  one.Add(2, Naming(0), 3);
  EXPECT_EQ(one.Judge(Workers(3)).at(0).why, "it cannot connect to w0 at 10.0.0.0, as others can (Connection refused)");
}

class UnreachableTest : public SchedulerTest {
 protected:
  void SetUp() override {
    SchedulerTest::SetUp();
    ConnectBoth();
  }
  void SayUnreachable(FakeWorker& worker, int peer) {
    v1::WorkerMessage message;
    *message.mutable_failed() = Naming(peer);
    *message.mutable_failed()->mutable_attempt() = worker.attempt;
    message.mutable_failed()->mutable_status()->set_code(static_cast<int>(absl::StatusCode::kUnavailable));
    message.mutable_failed()->set_consequence(true);
    Say(worker, message);
  }
  void SayConsequence(FakeWorker& worker) { SayFailed(worker, absl::UnavailableError("others cannot"), true); }
  // w0 cannot connect with w1, which has nothing to say against w0.
  void FailToReachW1() {
    SayUnreachable(*w0_, 1);
    SayConsequence(*w1_);
    SayReleased(*w0_);
    SayReleased(*w1_);
  }
  std::string ReasonFor(const std::string& worker) { return parts_->cluster.registry().Find(worker)->unreachable; }
};

TEST_F(UnreachableTest, TheJobGoesToOthersAndTheWorkerGetsNoMore) {
  FakeWorker& w2 = Connect("w2");
  const std::string id = Submit(ParseSpec(kTrainYaml))->id();
  ASSERT_THAT(Get(id).workers(), ElementsAre("w0", "w1"));
  FailToReachW1();
  EXPECT_EQ(StateOf("w1"), Worker::STATE_UNREACHABLE);
  EXPECT_THAT(ReasonFor("w1"), HasSubstr("data address 127.0.0.1 (w0: Connection refused)"));
  EXPECT_EQ(Get(id).state(), Job::STATE_STARTING);
  EXPECT_EQ(Get(id).attempt(), 2);
  EXPECT_THAT(Get(id).workers(), ElementsAre("w0", "w2"));
  EXPECT_EQ(StateOf("w0"), Worker::STATE_ASSIGNED);
  const auto events = Do([&] { return parts_->book.ListEvents(id, 0, ""); })->items;
  EXPECT_TRUE(std::ranges::any_of(events, [](const v1::JobEvent& event) {
    return event.message().find("worker w1 (stage 1) is unreachable") != std::string::npos;
  }));
  SayPrepared(*w0_);
  SayPrepared(w2);
  EXPECT_EQ(Get(id).state(), Job::STATE_RUNNING);
}

TEST_F(UnreachableTest, WithoutOthersAJobThatMayNotRestartFailsAndNamesWorkerAndAddress) {
  const std::string id = Submit(OnceSpec())->id();
  FailToReachW1();
  const Job job = Get(id);
  EXPECT_EQ(job.state(), Job::STATE_FAILED);
  EXPECT_EQ(job.failure().code(), "WORKER_UNREACHABLE");
  EXPECT_EQ(job.failure().worker(), "w1");
  EXPECT_THAT(job.failure().message(), HasSubstr("127.0.0.1"));

  const std::string next = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_EQ(Get(next).reason(), "needs 2 workers; 1 is connected; w1 is unreachable");
}

TEST_F(UnreachableTest, WithoutOthersTheJobWaits) {
  const std::string id = Submit(ParseSpec(kTrainYaml))->id();
  FailToReachW1();
  EXPECT_EQ(Get(id).state(), Job::STATE_QUEUED);
  EXPECT_EQ(Get(id).reason(), "needs 2 workers; 1 is connected; w1 is unreachable");
  EXPECT_EQ(Get(id).last_failure().code(), "WORKER_UNREACHABLE");
  EXPECT_EQ(Get(id).restarts(), 0) << "it has not run";
  Connect("w2");
  EXPECT_THAT(Get(id).workers(), ElementsAre("w0", "w2"));
}

TEST_F(UnreachableTest, ItIsTriedAgainAfterAWhileAndLaterEachTime) {
  const std::string id = Submit(ParseSpec(kTrainYaml))->id();
  for (const absl::Duration duration : {WorkerRegistry::kUnreachable, 2 * WorkerRegistry::kUnreachable}) {
    FailToReachW1();
    Pass(duration - absl::Seconds(2), {w0_, w1_});
    EXPECT_EQ(StateOf("w1"), Worker::STATE_UNREACHABLE);
    const int attempt = Get(id).attempt();
    Pass(absl::Seconds(4), {w0_, w1_});
    EXPECT_EQ(Get(id).attempt(), attempt + 1);
    EXPECT_THAT(Get(id).workers(), ElementsAre("w0", "w1"));
  }
  SayBothPrepared();
  EXPECT_EQ(Get(id).state(), Job::STATE_RUNNING);
  EXPECT_EQ(parts_->cluster.registry().Find("w1")->times_unreachable, 0);
}

TEST_F(UnreachableTest, ItComesBackAsANewProcessAndNotAsTheSame) {
  Submit(OnceSpec()).IgnoreError();
  FailToReachW1();
  const std::string incarnation = parts_->cluster.registry().Find("w1")->hello.incarnation();
  Disconnect(*w1_);
  EXPECT_EQ(StateOf("w1"), Worker::STATE_LOST);
  v1::Hello same = parts_->cluster.registry().Find("w1")->hello;
  auto channel = std::make_shared<FakeWorker>();
  ASSERT_TRUE(Do([&] { return parts_->cluster.registry().Join(same, channel, clock_.Now()); }).ok());
  EXPECT_EQ(StateOf("w1"), Worker::STATE_UNREACHABLE);
  EXPECT_NE(ReasonFor("w1"), "");

  WorkerEntry& entry = *parts_->cluster.registry().Find("w1");
  ASSERT_TRUE(parts_->cluster.registry().Apply(entry, WorkerEvent::kLost, "it was stopped").ok());
  Connect("w1");
  EXPECT_EQ(StateOf("w1"), Worker::STATE_IDLE);
  EXPECT_EQ(ReasonFor("w1"), "");
}

TEST_F(UnreachableTest, NobodyIsJudgedBeforeAllHaveSaidWhatTheySay) {
  FakeWorker& w2 = Connect("w2");
  v1::JobSpec spec = OnceSpec();
  spec.mutable_pipeline()->clear_balance();
  for (const int64_t layers : {1, 1, 1}) spec.mutable_pipeline()->add_balance(layers);
  const std::string id = Submit(spec)->id();
  ASSERT_THAT(Get(id).workers(), ElementsAre("w0", "w1", "w2"));
  SayUnreachable(*w0_, 2);
  SayUnreachable(w2, 0);
  EXPECT_EQ(Get(id).state(), Job::STATE_STARTING);
  SayUnreachable(*w1_, 2);
  for (FakeWorker* worker : {w0_, w1_, &w2}) SayReleased(*worker);
  EXPECT_EQ(Get(id).failure().worker(), "w2") << "it reaches nobody, and nobody reaches it";
  EXPECT_EQ(StateOf("w2"), Worker::STATE_UNREACHABLE);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
}

TEST_F(UnreachableTest, AWorkerThatSaysNothingIsNotWaitedForForEver) {
  const std::string id = Submit(OnceSpec())->id();
  Work(*w1_, v1::PHASE_JOINING, 1, -1, -1);
  Pass(absl::Seconds(1), {w0_, w1_});
  SayUnreachable(*w0_, 1);
  Pass(absl::Seconds(10), {w0_, w1_});
  EXPECT_EQ(Get(id).failure().code(), "WORKER_UNREACHABLE");
}

TEST_F(UnreachableTest, APeerThatDiedIsLostAndNotUnreachable) {
  const std::string id = Submit(OnceSpec())->id();
  SayUnreachable(*w0_, 1);
  Disconnect(*w1_);
  SayReleased(*w0_);
  EXPECT_EQ(Get(id).failure().code(), "WORKER_LOST");
  EXPECT_EQ(StateOf("w1"), Worker::STATE_LOST);
}

TEST_F(UnreachableTest, AnUnreachableWorkerMayLeave) {
  Submit(ParseSpec(kTrainYaml)).IgnoreError();
  FailToReachW1();
  SayLeaving(*w1_);
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
}

TEST_F(UnreachableTest, LinksThatCannotBeMeasuredForThatReasonTellIt) {
  answer_links_ = false;
  Connect("w2");
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_pipeline()->clear_balance();
  spec.mutable_pipeline()->set_workers(2);
  const std::string id = Submit(spec)->id();
  for (FakeWorker* worker : {w0_, w1_}) {
    worker->attempt = worker->Take(OrchestratorMessage::kMeasureLinks)->measure_links().attempt();
  }
  SayConsequence(*w1_);
  EXPECT_EQ(StateOf("w1"), Worker::STATE_ASSIGNED);
  SayUnreachable(*w0_, 1);
  EXPECT_EQ(StateOf("w1"), Worker::STATE_UNREACHABLE);
  answer_links_ = true;
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_THAT(Get(id).workers(), ElementsAre("w0", "w2"));
}

}  // namespace
}  // namespace gpipe::orchestrator
