// What workers log about an attempt, as events of its job.

#include <string>
#include <vector>

#include "tests/unit/orchestrator/scheduler_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using v1::Job;
using v1::Worker;

class WorkerLinesTest : public AttemptFailureTest {
 protected:
  void SayLines(FakeWorker& worker, const std::vector<std::string>& lines, bool warning = false) {
    v1::WorkerMessage message;
    *message.mutable_log()->mutable_attempt() = worker.attempt;
    for (const std::string& text : lines) {
      v1::LogLine& line = *message.mutable_log()->add_lines();
      line.mutable_time()->set_seconds(absl::ToUnixSeconds(clock_.Now()) - 3);
      line.set_text(text);
      line.set_warning(warning);
    }
    Say(worker, message);
  }

  std::vector<v1::JobEvent> EventsBy(const std::string& actor) {
    std::vector<v1::JobEvent> events = Events();
    std::erase_if(events, [&](const v1::JobEvent& event) { return event.actor() != actor; });
    return events;
  }
};

TEST_F(WorkerLinesTest, AreEventsInOrderWithTheWorkersName) {
  SayLines(*w1_, {"built stage 1", "connected with w0"});
  Run();
  SayLines(*w1_, {"it is slow"}, /*warning=*/true);
  const std::vector<v1::JobEvent> lines = EventsBy("w1");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].message(), "built stage 1");
  EXPECT_EQ(lines[0].state(), Job::STATE_STARTING);
  EXPECT_EQ(lines[0].attempt(), 1);
  EXPECT_EQ(lines[0].time().seconds(), absl::ToUnixSeconds(clock_.Now()) - 3) << "as the worker says";
  EXPECT_FALSE(lines[0].warning());
  EXPECT_EQ(lines[2].message(), "it is slow");
  EXPECT_EQ(lines[2].state(), Job::STATE_RUNNING);
  EXPECT_TRUE(lines[2].warning());
  EXPECT_GT(lines[2].sequence(), EventsBy("orchestrator").back().sequence());
}

TEST_F(WorkerLinesTest, OfAWorkersClockOnlyAFewSecondsAreBelieved) {
  v1::WorkerMessage message;
  *message.mutable_log()->mutable_attempt() = w0_->attempt;
  message.mutable_log()->add_lines()->mutable_time()->set_seconds(INT64_MAX);
  message.mutable_log()->add_lines()->mutable_time()->set_seconds(1);
  Say(*w0_, message);
  for (const v1::JobEvent& event : EventsBy("w0")) EXPECT_EQ(event.time().seconds(), absl::ToUnixSeconds(clock_.Now()));
}

TEST_F(WorkerLinesTest, ControlCharactersAreWrittenOut) {
  SayLines(*w0_, {"\x1b[31mred"});
  EXPECT_EQ(EventsBy("w0").at(0).message(), "\\x1b[31mred");
}

TEST_F(WorkerLinesTest, OfAnAttemptThatItDoesNotHaveAreIgnored) {
  w0_->attempt.set_attempt(7);
  SayLines(*w0_, {"about the future"});
  EXPECT_THAT(EventsBy("w0"), IsEmpty());
}

TEST_F(WorkerLinesTest, WhatAWorkerSaysOfItsFailureStandsBeforeTheEndOfTheJob) {
  SayLines(*w1_, {"out of memory"}, /*warning=*/true);
  SayFailed(*w1_, absl::ResourceExhaustedError("out of memory"), false);
  SayLines(*w0_, {"(consequence) the connection with worker 1 is lost"}, /*warning=*/true);
  SayReleased(*w0_);
  SayReleased(*w1_);
  const std::vector<v1::JobEvent> events = Events();
  EXPECT_EQ(events.back().state(), Job::STATE_FAILED);
  EXPECT_EQ(events.at(events.size() - 2).actor(), "w0");
  EXPECT_EQ(events.at(events.size() - 3).actor(), "w1");
}

TEST_F(WorkerLinesTest, AnAttemptBringsSoManyWhateverItsWorkersSend) {
  const std::vector<std::string> many(900, "line");
  for (int i = 0; i < 4; ++i) {
    SayLines(*w0_, many);
    SayLines(*w1_, many);
  }
  EXPECT_EQ(EventsBy("w0").size() + EventsBy("w1").size(), static_cast<size_t>(JobBook::kMaxLines));
  EXPECT_EQ(EventsBy("orchestrator").back().message(), "there is more in the workers' own logs");
  SayFailed(*w0_, absl::InternalError("why"), false);
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(Events().back().state(), Job::STATE_FAILED) << "other events have room";
}

TEST_F(WorkerLinesTest, ALineThatNoWorkerWouldSendLosesItsSender) {
  SayLines(*w0_, {std::string(100'000, 'x')});
  EXPECT_EQ(StateOf("w0"), Worker::STATE_LOST);
  SayReleased(*w1_);
  EXPECT_EQ(Get(id_).failure().worker(), "w0");
  EXPECT_THAT(Get(id_).failure().message(), HasSubstr("log.lines.text"));
}

}  // namespace
}  // namespace gpipe::orchestrator
