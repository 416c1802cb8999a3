#include "worker/checkpoint/checkpoint_writer.h"

#include <ATen/ATen.h>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

// Saves nothing: it keeps what it is given, and each save waits until it is let go.
class CheckpointWriterTest : public ::testing::Test {
 protected:
  CheckpointWriter::Options Options() {
    CheckpointWriter::Options options;
    options.save = [this](const TrainingState& copy, const std::stop_token& stop) { return Save(copy, stop); };
    options.on_failure = [this](const absl::Status& status) {
      absl::MutexLock lock(&mutex_);
      failures_.push_back(status);
    };
    options.stop = stop_.get_token();
    return options;
  }

  absl::Status Save(const TrainingState& copy, const std::stop_token& stop) {
    const std::stop_callback wake(stop, [this] { LetGo(absl::CancelledError("stopped")); });
    absl::MutexLock lock(&mutex_);
    saved_.push_back(copy);
    mutex_.Await(absl::Condition(this, &CheckpointWriterTest::Free));
    ++written_;
    return std::exchange(results_.front(), absl::OkStatus());
  }
  void LetGo(const absl::Status& result = absl::OkStatus()) {
    absl::MutexLock lock(&mutex_);
    ++let_go_;
    results_.assign(1, result);
  }
  bool Free() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return let_go_ >= static_cast<int>(saved_.size()); }

  TrainingState Live(int64_t step) {
    return {.step = step, .model = {{"w", 0, weight_, true}, {"mean", 0, mean_}}, .optimizer = {}};
  }
  std::vector<TrainingState> saved() {
    absl::MutexLock lock(&mutex_);
    return saved_;
  }

  at::Tensor weight_ = at::full({1000}, 1.0), mean_ = at::full({}, 1.0);
  std::stop_source stop_;
  absl::Mutex mutex_;
  std::vector<TrainingState> saved_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Status> results_ ABSL_GUARDED_BY(mutex_) = {absl::OkStatus()};
  std::vector<absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  int let_go_ ABSL_GUARDED_BY(mutex_) = 0;
  int written_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST_F(CheckpointWriterTest, WhatChangesAfterTheCopyIsNotInIt) {
  CheckpointWriter writer(Options());
  ASSERT_TRUE(writer.Begin(Live(3)).ok());
  mean_.fill_(2);  // As the next forward does.
  ASSERT_TRUE(writer.WaitForCopy().ok());
  weight_.fill_(2);  // As the next update does.
  LetGo();
  ASSERT_TRUE(writer.Wait().ok());
  ASSERT_EQ(saved().size(), 1u);
  EXPECT_EQ(saved()[0].step, 3);
  EXPECT_TRUE(at::equal(saved()[0].model[0].tensor, at::full({1000}, 1.0)));
  EXPECT_EQ(saved()[0].model[1].tensor.item<float>(), 1);
}

TEST_F(CheckpointWriterTest, TheNextCheckpointWaitsForTheLastOne) {
  CheckpointWriter writer(Options());
  ASSERT_TRUE(writer.Begin(Live(1)).ok());
  absl::Notification begun;
  std::thread engine([&] {
    EXPECT_TRUE(writer.Begin(Live(2)).ok());
    absl::MutexLock lock(&mutex_);
    EXPECT_EQ(written_, 1);
    begun.Notify();
  });
  LetGo();
  begun.WaitForNotification();
  engine.join();
  LetGo();
  ASSERT_TRUE(writer.Wait().ok());
  EXPECT_EQ(saved().size(), 2u);
}

TEST_F(CheckpointWriterTest, AFailureIsToldAtOnceAndToWhoeverWaits) {
  CheckpointWriter writer(Options());
  ASSERT_TRUE(writer.Begin(Live(1)).ok());
  LetGo(absl::ResourceExhaustedError("disk full"));
  EXPECT_TRUE(absl::IsResourceExhausted(writer.Wait()));
  EXPECT_TRUE(absl::IsResourceExhausted(writer.Begin(Live(2))));
  absl::MutexLock lock(&mutex_);
  const auto told = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !failures_.empty(); };
  mutex_.Await(absl::Condition(&told));
  EXPECT_EQ(failures_.size(), 1u);
}

TEST_F(CheckpointWriterTest, AStopWakesWhatIsBeingSavedAndWhoeverWaits) {
  CheckpointWriter writer(Options());
  ASSERT_TRUE(writer.Begin(Live(1)).ok());
  std::thread engine([&] { EXPECT_TRUE(absl::IsCancelled(writer.Wait())); });
  stop_.request_stop();
  engine.join();
  EXPECT_TRUE(absl::IsCancelled(writer.Begin(Live(2))));
}

TEST_F(CheckpointWriterTest, ItsEndGivesUpWhatIsBeingSaved) {
  {
    CheckpointWriter writer(Options());
    ASSERT_TRUE(writer.Begin(Live(1)).ok());
  }
  absl::MutexLock lock(&mutex_);
  EXPECT_TRUE(failures_.empty());
}

}  // namespace
}  // namespace gpipe::worker
