// What watchers are told of jobs and workers.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// With jobs and workers.
class MonitoringTest : public SchedulerTest {
 protected:
  // All that waits in the queue; ends the watch.
  static std::vector<JobUpdate> Drain(WatchQueue& queue) {
    std::vector<JobUpdate> updates;
    queue.Close(absl::OkStatus());
    bool more = true;
    while (more) {
      queue.Next([&](const JobUpdate& update, const absl::Status&) {
        more = update != nullptr;
        if (more) updates.push_back(update);
      });
    }
    return updates;
  }
  std::vector<JobUpdate> Watch(const WatchQueue::Wants& wants, const std::string& token) {
    auto queue = std::make_shared<WatchQueue>(wants);
    EXPECT_TRUE(Do([&] { return parts_->book.Watch(id_, queue, token); }).ok());
    std::vector<JobUpdate> updates = Drain(*queue);
    Do([&] { return parts_->book.Unwatch(id_, queue), 0; });
    return updates;
  }
  static std::vector<int64_t> StepsIn(const std::vector<JobUpdate>& updates) {
    std::vector<int64_t> steps;
    for (const JobUpdate& update : updates) {
      if (update->has_step()) steps.push_back(update->step().step());
    }
    return steps;
  }
};

TEST_F(MonitoringTest, AWatcherThatComesBackSeesEachStepOnce) {
  RunJob();
  const std::vector<JobUpdate> first = Watch({}, "");
  ASSERT_THAT(first, SizeIs(1));
  RoundOfBoth(0, 0);
  RoundOfBoth(1, 1);
  const std::vector<JobUpdate> then = Watch({}, first.back()->resume_token());
  EXPECT_THAT(StepsIn(then), ElementsAre(1, 2));
  RoundOfBoth(2, 2);
  ASSERT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  // The job is over meanwhile.
  const std::vector<JobUpdate> last = Watch({}, then.back()->resume_token());
  EXPECT_THAT(StepsIn(last), ElementsAre(3));
  EXPECT_EQ(last.back()->job().state(), v1::Job::STATE_CANCELLED);
  EXPECT_THAT(StepsIn(Watch({}, "")), IsEmpty());
}

TEST_F(MonitoringTest, StagesAreForThoseWhoAsk) {
  RunJob();
  const std::string token = Watch({.stages = true}, "").back()->resume_token();
  RoundOfBoth(0, 0);
  const std::vector<JobUpdate> asked = Watch({.stages = true}, token);
  ASSERT_THAT(asked, SizeIs(2));
  EXPECT_EQ(asked[1]->stages().step(), 1);
  EXPECT_THAT(asked[1]->stages().stages(), SizeIs(2));
  EXPECT_THAT(Watch({}, token), SizeIs(1));
}

TEST_F(MonitoringTest, TheTimelineOfAStepIsKeptUntilTheJobIsDeleted) {
  RunJob();
  v1::WorkerMessage message;
  *message.mutable_progress()->mutable_attempt() = w0_->attempt;
  v1::ActionDone& action = *message.mutable_progress()->add_actions();
  action.set_kind(v1::ACTION_KIND_FORWARD);
  action.set_start_nanos(1000);
  action.set_nanos(10);
  Say(*w0_, message);
  EXPECT_TRUE(absl::IsNotFound(Do([&] { return parts_->book.Timeline(id_, 0); }).status()));
  RoundOfBoth(0, 0);
  const auto timeline = Do([&] { return parts_->book.Timeline(id_, 1); });
  ASSERT_TRUE(timeline.ok()) << timeline.status();
  EXPECT_EQ(timeline->actions_size(), 1);
  EXPECT_THAT(timeline->workers(), ElementsAre("w0", "w1"));
  ASSERT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  EXPECT_TRUE(Do([&] { return parts_->book.Timeline(id_, 1); }).ok());
  Do([&] { return parts_->housekeeper.Delete(id_, [](const absl::Status&) {}), 0; });
  EXPECT_TRUE(absl::IsNotFound(Do([&] { return parts_->book.Timeline(id_, 1); }).status()));
}

TEST_F(MonitoringTest, AWorkerThatReportsForeignActionsIsNotBelieved) {
  RunJob();
  v1::WorkerMessage message;
  *message.mutable_progress()->mutable_attempt() = w0_->attempt;
  message.mutable_progress()->add_actions()->set_stage(1);
  Say(*w0_, message);
  Pass(absl::Seconds(3), {w0_, w1_});
  EXPECT_THAT(Get(id_).failure().message(), HasSubstr("it reported what cannot be"));
}

TEST_F(MonitoringTest, TheClusterIsWatched) {
  ConnectBoth();
  auto watcher = std::make_shared<ClusterFeed::Watcher>();
  std::vector<ClusterUpdate> seen;
  Do([&] { return parts_->monitor.Refresh(), 0; });
  ASSERT_TRUE(parts_->feed.Start(watcher, "").ok());
  std::function<void()> read = [&] {
    parts_->feed.Next(watcher, [&](const ClusterUpdate& update, const absl::Status&) {
      if (update == nullptr) return;
      seen.push_back(update);
      read();
    });
  };
  read();
  ASSERT_THAT(seen, SizeIs(3));
  EXPECT_EQ(seen[0]->worker().name(), "w0");
  EXPECT_TRUE(seen[2]->complete());
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  SayBothPrepared();
  Disconnect(*w1_);
  Pass(absl::Seconds(3), {w0_});
  std::set<std::string> states;
  for (const ClusterUpdate& update : seen) {
    if (update->has_job()) states.insert(v1::Job::State_Name(update->job().state()));
    EXPECT_FALSE(update->job().has_spec());
    if (update->has_worker()) {
      states.insert(update->worker().name() + v1::Worker::State_Name(update->worker().state()));
    }
  }
  EXPECT_TRUE(states.contains("STATE_QUEUED"));
  EXPECT_TRUE(states.contains("STATE_RUNNING"));
  EXPECT_TRUE(states.contains("w0STATE_ASSIGNED"));
  EXPECT_TRUE(states.contains("w1STATE_LOST"));
  parts_->feed.Close(absl::CancelledError("the test is over"));
}

TEST_F(MonitoringTest, HeartbeatsAreAnsweredWithTheTime) {
  FakeWorker& worker = Connect("w0");
  v1::WorkerMessage message;
  message.mutable_heartbeat()->set_sent_nanos(42);
  message.mutable_heartbeat()->mutable_use()->set_process_bytes(1000);
  Say(worker, message);
  const auto answer = worker.Take(v1::OrchestratorMessage::kAlive);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->alive().sent_nanos(), 42);
  EXPECT_EQ(answer->alive().answered_nanos(), absl::ToUnixNanos(clock_.Now()));
  EXPECT_EQ(DescribeWorker(*parts_->cluster.registry().Find("w0"), clock_.Now()).use().process_bytes(), 1000);
}

}  // namespace
}  // namespace gpipe::orchestrator
