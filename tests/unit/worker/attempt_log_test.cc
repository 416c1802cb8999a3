#include "worker/session/attempt_log.h"

#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "spdlog/logger.h"

namespace gpipe::worker {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class AttemptLogTest : public testing::Test {
 protected:
  AttemptLogTest() {
    outbox_.Open();
    sink_->Follow([this] { return attempt_; });
    Begin(1);
  }

  void Begin(int attempt) {
    attempt_.set_job("digits-a1b2c3");
    attempt_.set_attempt(attempt);
  }

  // All that is in the outbox, which has one message an attempt.
  std::vector<v1::Log> TakeAll() {
    std::vector<v1::Log> logs;
    while (const std::optional<v1::WorkerMessage> message = outbox_.Wait(absl::ZeroDuration(), true).message) {
      logs.push_back(message->log());
    }
    return logs;
  }
  std::vector<std::string> TakeLines() {
    std::vector<std::string> lines;
    for (const v1::Log& log : TakeAll()) {
      for (const v1::LogLine& line : log.lines()) lines.push_back(line.text());
    }
    return lines;
  }

  v1::AttemptId attempt_;
  Outbox outbox_{1};
  const std::shared_ptr<AttemptLog> sink_ = std::make_shared<AttemptLog>(outbox_);
  spdlog::logger logger_{"worker", sink_};
};

TEST_F(AttemptLogTest, SendsWhatIsAboutTheAttemptWithoutItsName) {
  logger_.debug("a detail");
  logger_.info("job digits-a1b2c3 attempt 1: built stage 0");
  logger_.warn("NCCL is slow");
  const std::vector<v1::Log> logs = TakeAll();
  ASSERT_EQ(logs.size(), 1u) << "lines are joined while they are not sent";
  ASSERT_EQ(logs[0].lines_size(), 2);
  EXPECT_EQ(logs[0].attempt().attempt(), 1);
  EXPECT_EQ(logs[0].lines(0).text(), "built stage 0");
  EXPECT_FALSE(logs[0].lines(0).warning());
  EXPECT_GT(logs[0].lines(0).time().seconds(), 1'600'000'000);
  EXPECT_EQ(logs[0].lines(1).text(), "NCCL is slow");
  EXPECT_TRUE(logs[0].lines(1).warning());
}

TEST_F(AttemptLogTest, SendsNothingWithoutAnAttemptOrASession) {
  attempt_.Clear();
  logger_.info("connected");
  Begin(2);
  sink_->Follow(nullptr);
  logger_.info("let go");
  sink_->Follow([this] { return attempt_; });
  outbox_.Close();
  logger_.info("nobody hears it");
  outbox_.Open();
  EXPECT_THAT(TakeLines(), IsEmpty());
}

TEST_F(AttemptLogTest, NeverWaitsForRoomInTheOutbox) {
  outbox_.Send({});
  for (int i = 0; i < 10; ++i) logger_.info("line");
  EXPECT_TRUE(outbox_.Wait(absl::ZeroDuration(), true).message);
  EXPECT_EQ(TakeLines().size(), 10u);
}

TEST_F(AttemptLogTest, OfEachAttemptThereIsSoMuchThenOneLineSaysThatThereIsMore) {
  for (int i = 0; i < 2 * AttemptLog::kMaxLines; ++i) logger_.info("line {}", i);
  std::vector<std::string> lines = TakeLines();
  ASSERT_EQ(lines.size(), AttemptLog::kMaxLines + 1u);
  EXPECT_EQ(lines.back(), "there is more in the worker's own log");
  logger_.warn("and then it failed");
  EXPECT_THAT(TakeLines(), ElementsAre("and then it failed"));
  Begin(2);
  logger_.info("again");
  EXPECT_THAT(TakeLines(), ElementsAre("again"));
}

TEST_F(AttemptLogTest, LongLinesAreCutBetweenCharactersAndBytesAreBounded) {
  std::string line = "x";
  for (int i = 0; i < 1000; ++i) line += "\u20ac";
  logger_.info(line);
  const std::string cut = TakeLines().at(0);
  EXPECT_LE(cut.size(), AttemptLog::kMaxLineBytes + 4);
  EXPECT_TRUE(cut.ends_with("\u20ac ..."));
  size_t bytes = 0;
  for (int i = 0; i < AttemptLog::kMaxLines; ++i) logger_.info(line);
  for (const std::string& sent : TakeLines()) bytes += sent.size();
  EXPECT_LE(bytes, AttemptLog::kMaxBytes);
}

TEST_F(AttemptLogTest, WhatIsNoTextIsWrittenOut) {
  logger_.info("\x1b[31mred \xff");
  EXPECT_THAT(TakeLines(), ElementsAre("\\x1b[31mred \\xff"));
}

}  // namespace
}  // namespace gpipe::worker
