#include "worker/engine/clock_offset.h"

#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

TEST(ClockOffsetTest, NothingIsKnownAtFirst) {
  ClockOffset clock;
  EXPECT_EQ(clock.OnOrchestrator(1000), 0);
  clock.Add(/*sent_nanos=*/0, 5, 10);  // An answer to a heartbeat that did not say when it was sent.
  clock.Add(20, 5, 10);
  EXPECT_EQ(clock.OnOrchestrator(1000), 0);
}

TEST(ClockOffsetTest, TheMiddleOfTheShortestRoundTripCounts) {
  ClockOffset clock;
  clock.Add(1000, 51'000, 3000);
  EXPECT_EQ(clock.OnOrchestrator(2000), 51'000);
  clock.Add(4000, 53'900, 4200);  // Shorter: it answered at 4100.
  EXPECT_EQ(clock.OnOrchestrator(0), 49'800);
  clock.Add(5000, 99'000, 9000);  // Longer.
  EXPECT_EQ(clock.OnOrchestrator(0), 49'800);
}

TEST(ClockOffsetTest, AnOrchestratorMayHaveStartedLater) {
  ClockOffset clock;
  clock.Add(100'000, 1000, 100'000);
  EXPECT_EQ(clock.OnOrchestrator(100'500), 1500);
  EXPECT_EQ(clock.OnOrchestrator(10), 0) << "before its clock began";
}

// Clocks drift: the shortest round trip of an hour ago would be wrong by milliseconds.
TEST(ClockOffsetTest, OldRoundTripsAreForgotten) {
  ClockOffset clock;
  clock.Add(1000, 2000, 1000);
  for (size_t i = 0; i < ClockOffset::kWindow - 1; ++i) clock.Add(10'000, 15'000, 10'200);
  EXPECT_EQ(clock.OnOrchestrator(0), 1000);
  clock.Add(10'000, 15'000, 10'200);
  EXPECT_EQ(clock.OnOrchestrator(0), 4900);
}

TEST(ClockOffsetTest, AnotherOrchestratorHasAnotherClock) {
  ClockOffset clock;
  clock.Add(1000, 2000, 1000);
  clock.Forget();
  EXPECT_EQ(clock.OnOrchestrator(5000), 0);
  clock.Add(1000, 900'000, 3000);
  EXPECT_EQ(clock.OnOrchestrator(2000), 900'000);
}

}  // namespace
}  // namespace gpipe::worker
