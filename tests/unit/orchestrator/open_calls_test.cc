#include "orchestrator/artifacts/open_calls.h"

#include <memory>
#include <thread>

#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

constexpr absl::Duration kShort = absl::Milliseconds(20);
constexpr absl::Duration kBound = absl::Seconds(10);

TEST(OpenCallsTest, ThereAreNoMoreThanSoMany) {
  OpenCalls calls("a test", {.most = 1, .patience = absl::InfiniteDuration()});
  auto place = calls.Enter([] {});
  EXPECT_NE(place, nullptr);
  EXPECT_EQ(calls.Enter([] {}), nullptr);
  place.reset();
  EXPECT_NE(calls.Enter([] {}), nullptr);
}

// What cancels a call may wait for gRPC's threads, which tell of what came meanwhile.
TEST(OpenCallsTest, OtherThreadsAreNotHeldUpByACancellation) {
  absl::Notification entered, touched, cancelled;
  std::unique_ptr<OpenCalls::Place> place;
  std::jthread other;
  bool in_time = false;
  OpenCalls calls("a test", {.most = 1, .patience = kShort});
  place = calls.Enter([&] {
    entered.WaitForNotification();
    if (cancelled.HasBeenNotified()) return;
    other = std::jthread([&] {
      place->Touch();
      touched.Notify();
    });
    in_time = touched.WaitForNotificationWithTimeout(kBound);
    cancelled.Notify();
  });
  entered.Notify();
  cancelled.WaitForNotification();
  EXPECT_TRUE(in_time);
  other.join();
  place.reset();
}

// gRPC may call back from within a cancellation: then the call ends there.
TEST(OpenCallsTest, ACancellationMayGiveItsPlaceBack) {
  absl::Notification entered, gone;
  std::unique_ptr<OpenCalls::Place> place;
  OpenCalls calls("a test", {.most = 1, .patience = kShort});
  place = calls.Enter([&] {
    entered.WaitForNotification();
    place->Touch();
    place.reset();
    gone.Notify();
  });
  entered.Notify();
  ASSERT_TRUE(gone.WaitForNotificationWithTimeout(kBound));
  EXPECT_NE(calls.Enter([] {}), nullptr);
}

TEST(OpenCallsTest, APlaceIsNotGoneWhileItsCallIsCancelled) {
  absl::Notification begun, go_on;
  bool cancelled = false;
  std::unique_ptr<OpenCalls::Place> place;
  OpenCalls calls("a test", {.most = 1, .patience = kShort});
  place = calls.Enter([&] {
    begun.Notify();
    go_on.WaitForNotification();
    cancelled = true;
  });
  ASSERT_TRUE(begun.WaitForNotificationWithTimeout(kBound));
  std::jthread ends([&] {
    place.reset();
    EXPECT_TRUE(cancelled);
  });
  go_on.Notify();
}

}  // namespace
}  // namespace gpipe::orchestrator
