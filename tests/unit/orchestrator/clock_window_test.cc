#include "orchestrator/scheduling/clock_window.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/planning/job_rounds.h"

namespace gpipe::orchestrator {
namespace {

using testing::Optional;

// 10 samples in batches of 4: rounds of 4, 4 and 2 samples with 5, 5 and 3 cycles; 5 rounds, starting over.
v1::Plan TrainPlan(int64_t steps, int64_t checkpoint_every = 0) {
  v1::Plan plan;
  plan.mutable_timeline()->set_samples(10);
  plan.mutable_timeline()->set_batch_size(4);
  plan.mutable_timeline()->set_steps(steps);
  plan.mutable_timeline()->set_checkpoint_every(checkpoint_every);
  for (auto [size, cycles] : {std::pair<int64_t, int>{4, 5}, {2, 3}}) {
    v1::Program& program = *plan.add_programs();
    program.set_kind(v1::PROGRAM_KIND_TRAIN);
    program.set_batch_size(size);
    program.set_cycles(cycles);
  }
  return plan;
}

TEST(ClockWindowTest, LockStepGrantsTheNextCycleWhenAllWorkersCompletedTheLast) {
  const v1::Plan plan = TrainPlan(2);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 2, 1);
  EXPECT_THAT(window.NextGrant(), Optional(Position{0, 0}));
  EXPECT_EQ(window.NextGrant(), std::nullopt);
  ASSERT_TRUE(window.Complete(0, {0, 0}).ok());
  EXPECT_EQ(window.NextGrant(), std::nullopt);
  ASSERT_TRUE(window.Complete(1, {0, 0}).ok());
  EXPECT_THAT(window.NextGrant(), Optional(Position{0, 1}));
}

TEST(ClockWindowTest, LockStepCrossesRoundsAndEnds) {
  const v1::Plan plan = TrainPlan(3);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 1, 1);
  std::vector<Position> granted;
  while (std::optional<Position> grant = window.NextGrant()) {
    granted.push_back(*grant);
    ASSERT_TRUE(window.Complete(0, *grant).ok());
  }
  ASSERT_EQ(granted.size(), 13u);
  EXPECT_EQ(granted[4], (Position{0, 4}));
  EXPECT_EQ(granted[5], (Position{1, 0}));
  EXPECT_EQ(granted[12], (Position{2, 2}));
  EXPECT_TRUE(window.all_done());
  EXPECT_EQ(window.rounds_done(), 3);
}

TEST(ClockWindowTest, ACheckpointRoundHasOneCycle) {
  const v1::Plan plan = TrainPlan(2, 1);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 1, 6);
  EXPECT_THAT(window.NextGrant(), Optional(Position{1, 0}));
  ASSERT_TRUE(window.Complete(0, {1, 0}).ok());
  EXPECT_THAT(window.NextGrant(), Optional(Position{3, 0}));
}

TEST(ClockWindowTest, AWindowOfCyclesEndsInsideARound) {
  const v1::Plan plan = TrainPlan(100);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 2, 7);
  EXPECT_THAT(window.NextGrant(), Optional(Position{1, 1}));
}

TEST(ClockWindowTest, TheDefaultStaysAtLeastFourWholeRoundsAheadOfTheSlowest) {
  const v1::Plan plan = TrainPlan(100);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 2, 0);
  window.NextGrant();
  for (int64_t round = 0; round < 50; ++round) {
    const Position end{round, round % 3 == 2 ? 2 : 4};
    ASSERT_TRUE(window.Complete(0, end).ok());
    ASSERT_TRUE(window.Complete(1, end).ok());
    window.NextGrant();
    EXPECT_GE(window.granted()->round, round + ClockWindow::kMinRounds - 1);
    EXPECT_LE(window.granted()->round, round + ClockWindow::kMinRounds + 1);
  }
}

TEST(ClockWindowTest, ShortRoundsAreGrantedFurtherAhead) {
  const v1::Plan plan = TrainPlan(100000);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 1, 0);
  window.set_round_seconds(0.01);
  EXPECT_EQ(window.NextGrant()->round, 25);
  window.set_round_seconds(1e-9);
  EXPECT_EQ(window.NextGrant()->round, ClockWindow::kMaxRounds);
}

TEST(ClockWindowTest, OfLongRoundsFewAreToldAhead) {
  const v1::Plan plan = TrainPlan(100);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 1, 0);
  window.NextGrant();
  window.set_round_seconds(2);
  for (int64_t round = 0; round < 20; ++round) {
    ASSERT_TRUE(window.Complete(0, {round, round % 3 == 2 ? 2 : 4}).ok());
    window.NextGrant();
  }
  EXPECT_EQ(window.granted()->round, 20 + ClockWindow::kMinLongRounds);
  EXPECT_EQ(rounds.Next()->index(), window.granted()->round + ClockWindow::kLongToldAhead + 1);
}

TEST(ClockWindowTest, AnEnormousWindowGrantsEverythingThatIsLaidOut) {
  const v1::Plan small = TrainPlan(5);
  JobRounds everything_rounds({}, small);
  ClockWindow everything(small, &everything_rounds, 1, std::numeric_limits<int64_t>::max());
  EXPECT_THAT(everything.NextGrant(), Optional(Position{4, 4}));
  EXPECT_EQ(everything.NextGrant(), std::nullopt);

  const v1::Plan large = TrainPlan(1'000'000'000);
  JobRounds bounded_rounds({}, large);
  ClockWindow bounded(large, &bounded_rounds, 1, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(bounded.NextGrant()->round, ClockWindow::kMaxLookahead - 1);
}

// Walks the whole job in windows of `window`, and checks at each grant what has been told by then.
void ExpectToldAhead(int64_t window_size) {
  const v1::Plan plan = TrainPlan(40, 3);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 1, window_size);
  int64_t told = 0;
  bool complete = false;
  const auto take = [&] {
    const v1::Rounds news = window.TakeNews();
    for (const v1::Round& round : news.rounds()) EXPECT_EQ(round.index(), told++);
    complete |= news.complete();
  };
  take();
  EXPECT_EQ(told, ClockWindow::kToldAhead + 1) << "with the assignment";
  while (std::optional<Position> grant = window.NextGrant()) {
    take();
    EXPECT_TRUE(complete || told > grant->round + 2);
    ASSERT_TRUE(window.Complete(0, *grant).ok());
  }
  EXPECT_TRUE(complete);
  EXPECT_EQ(told, 53) << "40 steps and 13 checkpoints";
  EXPECT_EQ(window.TakeNews().rounds_size(), 0);
}

TEST(ClockWindowTest, RoundsAreToldBeforeTheyAreGranted) {
  for (const int64_t window : {int64_t{0}, int64_t{1}, int64_t{7}, std::numeric_limits<int64_t>::max()}) {
    ExpectToldAhead(window);
  }
}

TEST(ClockWindowTest, ThatNothingIsLeftIsToldAtOnce) {
  v1::Plan plan = TrainPlan(10);
  plan.mutable_timeline()->set_first_step(10);
  JobRounds rounds({}, plan);
  const v1::Rounds news = ClockWindow(plan, &rounds, 2, 0).TakeNews();
  EXPECT_TRUE(news.complete());
  EXPECT_EQ(news.rounds_size(), 0);
}

TEST(ClockWindowTest, RefusesWhatWasNotGrantedOrDoesNotExist) {
  const v1::Plan plan = TrainPlan(10);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 2, 2);
  window.NextGrant();
  EXPECT_FALSE(window.Complete(0, {0, 2}).ok());
  EXPECT_FALSE(window.Complete(0, {0, -1}).ok());
  EXPECT_FALSE(window.Complete(0, {0, 5}).ok());
  EXPECT_FALSE(window.Complete(0, {-1, 0}).ok());
  EXPECT_FALSE(window.Complete(0, {1 << 20, 0}).ok());
  EXPECT_TRUE(window.Complete(0, {0, 1}).ok());
  EXPECT_FALSE(window.Complete(0, {0, 0}).ok());
  EXPECT_TRUE(window.Complete(0, {0, 1}).ok());
}

TEST(ClockWindowTest, AnAttemptWithNothingLeftGrantsNothing) {
  v1::Plan plan = TrainPlan(10);
  plan.mutable_timeline()->set_first_step(10);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 2, 0);
  EXPECT_EQ(window.NextGrant(), std::nullopt);
  EXPECT_TRUE(window.all_done());
  EXPECT_EQ(window.rounds_done(), 0);
  EXPECT_FALSE(window.Complete(0, {0, 0}).ok());
}

TEST(ClockWindowTest, CountsRoundsByTheSlowestWorker) {
  const v1::Plan plan = TrainPlan(10);
  JobRounds rounds({}, plan);
  ClockWindow window(plan, &rounds, 2, 0);
  window.NextGrant();
  ASSERT_TRUE(window.Complete(0, {2, 0}).ok());
  EXPECT_EQ(window.rounds_done(), 0);
  ASSERT_TRUE(window.Complete(1, {0, 4}).ok());
  EXPECT_EQ(window.rounds_done(), 1);
  EXPECT_EQ(window.ticks_done(), 5);
  EXPECT_EQ(window.most_ticks_done(), 11);
  EXPECT_THAT(window.TickOf({1, 2}), Optional(7));
}

}  // namespace
}  // namespace gpipe::orchestrator
