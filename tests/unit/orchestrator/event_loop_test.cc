#include "orchestrator/cluster/event_loop.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;

EventLoop::Transaction Nothing() {
  return {.begin = [] { return absl::OkStatus(); }, .commit = [] { return absl::OkStatus(); }};
}

class EventLoopTest : public testing::Test {
 protected:
  FakeClock clock_;
  EventLoop loop_{&clock_, 4, Nothing()};
  std::vector<int> ran_;
};

TEST_F(EventLoopTest, RunsTasksInOrder) {
  for (int i = 0; i < 3; ++i) loop_.Post([this, i] { ran_.push_back(i); });
  loop_.RunPending();
  EXPECT_THAT(ran_, ElementsAre(0, 1, 2));
}

TEST_F(EventLoopTest, RefusesClientsWhenFullButNothingElse) {
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(loop_.TryPost([] {}));
  EXPECT_FALSE(loop_.TryPost([] {}));
  EXPECT_TRUE(loop_.Post([] {}));
  loop_.RunPending();
  EXPECT_TRUE(loop_.TryPost([] {}));
}

TEST_F(EventLoopTest, RunsTimersWhenDueInOrderOfTime) {
  loop_.PostAfter(absl::Seconds(2), [this] { ran_.push_back(2); });
  loop_.PostAfter(absl::Seconds(1), [this] { ran_.push_back(1); });
  loop_.RunPending();
  EXPECT_THAT(ran_, ElementsAre());
  clock_.Advance(absl::Seconds(3));
  loop_.RunPending();
  EXPECT_THAT(ran_, ElementsAre(1, 2));
}

TEST_F(EventLoopTest, ACancelledTimerDoesNotRunEvenWhenDueInTheSameBatch) {
  EventLoop::TimerId second = 0;
  loop_.PostAfter(absl::Seconds(1), [&] { loop_.CancelTimer(second); });
  second = loop_.PostAfter(absl::Seconds(1), [this] { ran_.push_back(2); });
  clock_.Advance(absl::Seconds(1));
  loop_.RunPending();
  EXPECT_THAT(ran_, ElementsAre());
  loop_.CancelTimer(second);
  loop_.CancelTimer(12345);
}

TEST_F(EventLoopTest, WhatIsInTheQueueComesBeforeTimers) {
  loop_.PostAfter(absl::Seconds(1), [this] { ran_.push_back(2); });
  loop_.Post([this] { ran_.push_back(1); });
  clock_.Advance(absl::Seconds(1));
  loop_.RunPending();
  EXPECT_THAT(ran_, ElementsAre(1, 2));
}

TEST(EventLoopBatchTest, EffectsFollowTheCommitOfTheirBatch) {
  FakeClock clock;
  std::vector<std::string> log;
  EventLoop loop(&clock, 10,
                 {.begin = [&] { return log.push_back("begin"), absl::OkStatus(); },
                  .commit = [&] { return log.push_back("commit"), absl::OkStatus(); }});
  for (int i = 0; i < 2; ++i) {
    loop.Post([&] {
      log.push_back("task");
      loop.AfterCommit([&](const absl::Status& stored) { log.push_back(stored.ok() ? "effect" : "error"); });
    });
  }
  loop.RunPending();
  EXPECT_THAT(log, ElementsAre("begin", "task", "task", "commit", "effect", "effect"));
}

TEST(EventLoopBatchTest, EffectsLearnThatTheBatchWasNotStored) {
  FakeClock clock;
  absl::Status seen;
  EventLoop loop(
      &clock, 10,
      {.begin = [] { return absl::OkStatus(); }, .commit = [] { return absl::ResourceExhaustedError("disk full"); }});
  loop.Post([&] { loop.AfterCommit([&](const absl::Status& stored) { seen = stored; }); });
  loop.RunPending();
  EXPECT_TRUE(absl::IsResourceExhausted(seen));
}

TEST(EventLoopThreadTest, StopRunsWhatIsPostedAndRefusesTheRest) {
  SteadyClock clock;
  EventLoop loop(&clock, 1000, Nothing());
  std::thread thread([&] { loop.Run(); });
  std::atomic<int> ran = 0;
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      for (int i = 0; i < 100; ++i) EXPECT_TRUE(loop.Post([&] { ++ran; }));
    });
  }
  for (std::thread& client : clients) client.join();
  loop.Stop();
  thread.join();
  EXPECT_EQ(ran, 400);
  EXPECT_FALSE(loop.Post([] {}));
  EXPECT_FALSE(loop.TryPost([] {}));
}

TEST(EventLoopThreadTest, RunWakesForATimer) {
  SteadyClock clock;
  EventLoop loop(&clock, 10, Nothing());
  loop.PostAfter(absl::Milliseconds(1), [&] { loop.Stop(); });
  loop.Run();
}

}  // namespace
}  // namespace gpipe::orchestrator
