#include "worker/engine/failpoint.h"

#include <string>

#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

absl::Status Blocked() { return absl::CancelledError("aborted"); }

TEST(Failpoint, IsInertWithoutAText) {
  absl::StatusOr<Failpoint> point = Failpoint::Parse("");
  ASSERT_TRUE(point.ok());
  EXPECT_FALSE(point->armed());
  for (std::string_view name : failpoint::kAll) {
    EXPECT_TRUE(point->Hit(name, Blocked).ok());
    EXPECT_FALSE(point->HitNan(name));
  }
}

TEST(Failpoint, EveryNameActsOnceAtItsHit) {
  for (std::string_view name : failpoint::kAll) {
    absl::StatusOr<Failpoint> point = Failpoint::Parse(std::string(name) + "=error@3");
    ASSERT_TRUE(point.ok()) << point.status();
    for (std::string_view other : failpoint::kAll) {
      if (other != name) {
        EXPECT_TRUE(point->Hit(other, Blocked).ok());
      }
    }
    EXPECT_TRUE(point->Hit(name, Blocked).ok());
    EXPECT_TRUE(point->Hit(name, Blocked).ok());
    EXPECT_EQ(point->Hit(name, Blocked).code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(point->Hit(name, Blocked).ok());
  }
}

TEST(Failpoint, StopBlocksUntilTheAbort) {
  absl::StatusOr<Failpoint> point = Failpoint::Parse("worker.backward=stop");
  ASSERT_TRUE(point.ok());
  EXPECT_EQ(point->Hit(failpoint::kBackward, Blocked).message(), "aborted");
}

TEST(Failpoint, OutOfMemoryIsResourceExhausted) {
  absl::StatusOr<Failpoint> point = Failpoint::Parse("worker.forward=oom");
  ASSERT_TRUE(point.ok());
  EXPECT_EQ(point->Hit(failpoint::kForward, Blocked).code(), absl::StatusCode::kResourceExhausted);
}

TEST(Failpoint, NanSpoilsOneResult) {
  absl::StatusOr<Failpoint> point = Failpoint::Parse("worker.forward=nan@2");
  ASSERT_TRUE(point.ok());
  EXPECT_TRUE(point->Hit(failpoint::kForward, Blocked).ok());
  EXPECT_FALSE(point->HitNan(failpoint::kForward));
  EXPECT_TRUE(point->HitNan(failpoint::kForward));
  EXPECT_FALSE(point->HitNan(failpoint::kForward));
}

TEST(FailpointDeathTest, KillEndsTheProcessAsKill9Does) {
  absl::StatusOr<Failpoint> point = Failpoint::Parse("worker.optimizer=kill");
  ASSERT_TRUE(point.ok());
  EXPECT_EXIT(point->Hit(failpoint::kOptimizer, Blocked).IgnoreError(), testing::KilledBySignal(SIGKILL), "");
}

TEST(Failpoint, WhatItDoesNotUnderstandIsRefusedByName) {
  for (const char* text : {"worker.forward", "worker.nowhere=stop", "worker.forward=explode", "worker.forward=stop@0",
                           "worker.forward=stop@x"}) {
    const absl::Status status = Failpoint::Parse(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(status.message().find(text), absl::string_view::npos) << status;
  }
}

}  // namespace
}  // namespace gpipe::worker
