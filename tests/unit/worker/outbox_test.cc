#include "worker/session/outbox.h"

#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

v1::WorkerMessage ProgressTo(int64_t round, int cycle, int attempt = 1) {
  v1::WorkerMessage message;
  v1::Progress& progress = *message.mutable_progress();
  progress.mutable_attempt()->set_job("job");
  progress.mutable_attempt()->set_attempt(attempt);
  progress.set_round(round);
  progress.set_cycle(cycle);
  progress.add_rounds()->set_round(round);
  return message;
}

v1::WorkerMessage Released() {
  v1::WorkerMessage message;
  message.mutable_released();
  return message;
}

TEST(Outbox, DropsWhatIsSentWithoutASession) {
  Outbox outbox;
  outbox.Send(Released());
  outbox.Open();
  EXPECT_FALSE(outbox.Wait(absl::ZeroDuration(), false).message);
}

TEST(Outbox, AChangeOfActivityBeforeTheSessionDoesNotWakeItsWriter) {
  Outbox outbox;
  outbox.ActivityChanged();
  outbox.Open();
  EXPECT_FALSE(outbox.Wait(absl::ZeroDuration(), false).activity_changed);
  outbox.ActivityChanged();
  EXPECT_TRUE(outbox.Wait(absl::InfiniteDuration(), false).activity_changed);
}

TEST(Outbox, JoinsProgressThatIsNotSentYet) {
  Outbox outbox;
  outbox.Open();
  outbox.Send(ProgressTo(3, 8));
  outbox.Send(ProgressTo(4, 0));
  const Outbox::Next next = outbox.Wait(absl::InfiniteDuration(), false);
  ASSERT_TRUE(next.message);
  EXPECT_EQ(next.message->progress().round(), 4);
  EXPECT_EQ(next.message->progress().cycle(), 0);
  EXPECT_EQ(next.message->progress().rounds_size(), 2);
  EXPECT_FALSE(outbox.Wait(absl::ZeroDuration(), false).message);
}

TEST(Outbox, KeepsOrderAndAttemptsApart) {
  Outbox outbox;
  outbox.Open();
  outbox.Send(ProgressTo(3, 8, 1));
  outbox.Send(ProgressTo(0, 0, 2));
  outbox.Send(Released());
  outbox.Send(ProgressTo(0, 1, 2));
  EXPECT_EQ(outbox.Wait(absl::InfiniteDuration(), false).message->progress().attempt().attempt(), 1);
  EXPECT_EQ(outbox.Wait(absl::InfiniteDuration(), false).message->progress().attempt().attempt(), 2);
  EXPECT_TRUE(outbox.Wait(absl::InfiniteDuration(), false).message->has_released());
  EXPECT_EQ(outbox.Wait(absl::InfiniteDuration(), false).message->progress().cycle(), 1);
}

TEST(Outbox, AFullQueueHoldsTheSenderUntilThereIsRoom) {
  Outbox outbox(1);
  outbox.Open();
  outbox.Send(Released());
  std::thread sender([&] { outbox.Send(Released()); });
  EXPECT_TRUE(outbox.Wait(absl::InfiniteDuration(), false).message);
  EXPECT_TRUE(outbox.Wait(absl::InfiniteDuration(), false).message);
  sender.join();
}

TEST(Outbox, ClosingWakesSenderAndWriter) {
  Outbox outbox(1);
  outbox.Open();
  outbox.Send(Released());
  std::thread sender([&] { outbox.Send(Released()); });
  outbox.Close();
  sender.join();
  EXPECT_TRUE(outbox.Wait(absl::InfiniteDuration(), false).closed);
}

TEST(Outbox, AChangeOfActivityWakesTheWriterOnce) {
  Outbox outbox;
  outbox.Open();
  outbox.ActivityChanged();
  EXPECT_TRUE(outbox.Wait(absl::InfiniteDuration(), false).activity_changed);
  EXPECT_TRUE(outbox.Wait(absl::ZeroDuration(), true).activity_changed) << "still to be told";
  outbox.TakeActivityChange();
  EXPECT_FALSE(outbox.Wait(absl::ZeroDuration(), false).activity_changed);
}

}  // namespace
}  // namespace gpipe::worker
