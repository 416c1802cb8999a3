#include "worker/engine/round_feed.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

using testing::HasSubstr;
using Walker = RoundFeed::Walker;

v1::Rounds Checkpoints(int64_t first, int64_t count, bool complete) {
  v1::Rounds rounds;
  for (int64_t index = first; index < first + count; ++index) {
    v1::Round& round = *rounds.add_rounds();
    round.set_index(index);
    round.set_kind(v1::ROUND_KIND_CHECKPOINT);
  }
  rounds.set_complete(complete);
  return rounds;
}

// The index of the walker's next round; -1 at the end, -2 after an error.
int64_t Step(RoundFeed& feed, Walker walker) {
  const absl::StatusOr<std::optional<v1::Round>> round = feed.Next(walker);
  if (!round.ok()) return -2;
  return round->has_value() ? (*round)->index() : -1;
}

TEST(RoundFeed, EachWalkerGetsEveryRoundInItsOrder) {
  RoundFeed feed;
  feed.Tell(Checkpoints(0, 2, false));
  EXPECT_EQ(feed.count(), std::nullopt);
  for (const int64_t index : {0, 1}) EXPECT_EQ(Step(feed, Walker::kDataReader), index);
  feed.Tell(Checkpoints(2, 1, true));
  EXPECT_EQ(feed.count(), 3);
  for (const int64_t index : {0, 1, 2, -1, -1}) EXPECT_EQ(Step(feed, Walker::kEngine), index);
  for (const int64_t index : {2, -1}) EXPECT_EQ(Step(feed, Walker::kDataReader), index);
}

TEST(RoundFeed, AWalkerWaitsUntilItIsToldMoreOrThatThereIsNoMore) {
  RoundFeed feed;
  int64_t first = -2, second = -2;
  std::thread walker([&] {
    first = Step(feed, Walker::kEngine);
    second = Step(feed, Walker::kEngine);
  });
  feed.Tell(Checkpoints(0, 1, false));
  feed.Tell(Checkpoints(1, 0, true));
  walker.join();
  EXPECT_EQ(first, 0);
  EXPECT_EQ(second, -1);
}

TEST(RoundFeed, WhatIsNotKnownYetIsNotWaitedFor) {
  RoundFeed feed;
  EXPECT_EQ(*feed.TryNext(Walker::kEngine), std::nullopt);
  feed.Tell(Checkpoints(0, 1, false));
  EXPECT_EQ((*feed.TryNext(Walker::kEngine))->index(), 0);
  EXPECT_EQ(*feed.TryNext(Walker::kEngine), std::nullopt);
  feed.Abort(absl::CancelledError("the end"));
  EXPECT_TRUE(absl::IsCancelled(feed.TryNext(Walker::kEngine).status()));
}

TEST(RoundFeed, ProgramsThatComeWithRoundsAreTakenOnce) {
  RoundFeed feed;
  v1::Rounds rounds = Checkpoints(0, 1, false);
  rounds.add_programs()->set_batch_size(7);
  feed.Tell(rounds);
  EXPECT_EQ(feed.TakePrograms().Get(0).batch_size(), 7);
  EXPECT_TRUE(feed.TakePrograms().empty());
}

TEST(RoundFeed, AnAbortAndLeavingWakeAWalker) {
  RoundFeed feed;
  int64_t engine = 0, reader = 0;
  std::thread first([&] { engine = Step(feed, Walker::kEngine); });
  std::thread second([&] { reader = Step(feed, Walker::kDataReader); });
  feed.Leave(Walker::kDataReader);
  second.join();
  feed.Abort(absl::CancelledError("why"));
  feed.Abort(absl::InternalError("later"));
  first.join();
  EXPECT_EQ(reader, -1);
  EXPECT_EQ(engine, -2);
  EXPECT_EQ(feed.Next(Walker::kEngine).status(), absl::CancelledError("why"));
}

TEST(RoundFeed, OneWhoLeftHoldsNothingBack) {
  RoundFeed feed;
  feed.Leave(Walker::kDataReader);
  for (size_t i = 0; i < 3 * RoundFeed::kMost; ++i) {
    feed.Tell(Checkpoints(static_cast<int64_t>(i), 1, false));
    ASSERT_EQ(Step(feed, Walker::kEngine), static_cast<int64_t>(i));
  }
}

void ExpectRefused(const v1::Rounds& rounds, std::string_view why) {
  RoundFeed feed;
  feed.Tell(Checkpoints(0, 1, false));
  feed.Tell(rounds);
  const absl::Status status = feed.Next(Walker::kEngine).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr(why));
}

TEST(RoundFeed, RefusesWhatMakesNoSense) {
  ExpectRefused(Checkpoints(2, 1, false), "round 2 was told instead of 1");
  ExpectRefused(Checkpoints(0, 1, false), "round 0 was told instead of 1");
  ExpectRefused(Checkpoints(1, RoundFeed::kMost, false), "more than 8192 rounds");
  v1::Rounds rounds = Checkpoints(1, 1, false);
  rounds.mutable_rounds(0)->set_kind(v1::ROUND_KIND_TRAIN);
  ExpectRefused(rounds, "round 1 has no samples");
  rounds.mutable_rounds(0)->set_batch_size(1);
  rounds.mutable_rounds(0)->set_first_sample(-1);
  ExpectRefused(rounds, "negative");
  rounds.mutable_rounds(0)->set_kind(static_cast<v1::RoundKind>(99));
  ExpectRefused(rounds, "an unknown kind (99)");
}

TEST(RoundFeed, NothingFollowsTheEnd) {
  RoundFeed feed;
  feed.Tell(Checkpoints(0, 1, true));
  feed.Tell(Checkpoints(1, 0, false));
  EXPECT_EQ(Step(feed, Walker::kEngine), 0);
  feed.Tell(Checkpoints(1, 1, false));
  EXPECT_EQ(feed.Next(Walker::kEngine).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace gpipe::worker
