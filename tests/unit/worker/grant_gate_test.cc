#include "worker/engine/grant_gate.h"

#include <thread>
#include <vector>

#include "common/bounded_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::worker {

void PrintTo(const Position& position, std::ostream* out) { *out << position.round << "," << position.cycle; }

namespace {

absl::Status Nothing(Position) { return absl::OkStatus(); }

TEST(GrantGate, WhatIsGrantedPassesWithoutBlocking) {
  GrantGate gate;
  gate.Advance({2, 1});
  bool blocked = false;
  auto note = [&](Position) {
    blocked = true;
    return absl::OkStatus();
  };
  EXPECT_TRUE(gate.Wait({0, 99}, note).ok());
  EXPECT_TRUE(gate.Wait({2, 1}, note).ok());
  EXPECT_FALSE(blocked);
}

// Window 1: each grant that does not reach the wanted cycle still completes the cycles before it.
TEST(GrantGate, ReportsEachGrantOfCyclesWithoutWorkAsComplete) {
  GrantGate gate;
  BoundedQueue<Position> reports(16);
  std::thread engine([&] {
    EXPECT_TRUE(gate.Wait({0, 3},
                          [&](Position complete) {
                            reports.Push(complete);
                            return absl::OkStatus();
                          })
                    .ok());
    reports.Close();
  });
  std::vector<Position> seen;
  for (int cycle = 0; cycle <= 3; ++cycle) {
    seen.push_back(*reports.Pop());
    gate.Advance({0, cycle});
  }
  engine.join();
  EXPECT_FALSE(reports.Pop());
  EXPECT_THAT(seen, testing::ElementsAre(Position{-1, -1}, Position{0, 0}, Position{0, 1}, Position{0, 2}));
}

TEST(GrantGate, GrantsOnlyMoveForward) {
  GrantGate gate;
  gate.Advance({3, 0});
  gate.Advance({1, 7});
  EXPECT_TRUE(gate.Wait({3, 0}, Nothing).ok());
}

TEST(GrantGate, AbortWakesTheWaiterAndStays) {
  GrantGate gate;
  std::thread engine([&] {
    const absl::Status status = gate.Wait({0, 0}, Nothing);
    EXPECT_EQ(status.message(), "first");
  });
  gate.Abort(absl::CancelledError("first"));
  gate.Abort(absl::CancelledError("second"));
  engine.join();
  gate.Advance({9, 9});
  EXPECT_EQ(gate.Wait({0, 0}, Nothing).message(), "first");
}

TEST(GrantGate, AnErrorOfTheReportEndsTheWait) {
  GrantGate gate;
  EXPECT_EQ(gate.Wait({0, 0}, [](Position) { return absl::OutOfRangeError("nan"); }).message(), "nan");
}

}  // namespace
}  // namespace gpipe::worker
