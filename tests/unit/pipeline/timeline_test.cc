#include "pipeline/timeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace gpipe::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<Round> Walk(const TimelineSpec& spec) {
  std::vector<Round> rounds;
  RoundCursor cursor(spec);
  while (std::optional<Round> round = cursor.Next()) rounds.push_back(*round);
  return rounds;
}

// Rounds of one kind as (step, epoch, first_sample, batch_size).
using Entry = std::tuple<int64_t, int64_t, int64_t, int64_t>;
std::vector<Entry> OfKind(const std::vector<Round>& rounds, RoundKind kind) {
  std::vector<Entry> entries;
  for (const Round& round : rounds) {
    if (round.kind == kind) entries.emplace_back(round.step, round.epoch, round.first_sample, round.batch_size);
  }
  return entries;
}

// One letter per round: Train, Evaluate, Checkpoint, Infer, Loss, Store.
std::string Kinds(const TimelineSpec& spec) {
  std::string kinds;
  for (const Round& round : Walk(spec)) kinds += "TECILS"[static_cast<int>(round.kind)];
  return kinds;
}

TEST(TimelineTest, TheLastBatchOfAnEpochIsSmallerAndStepsBeyondItStartOver) {
  EXPECT_THAT(OfKind(Walk({.samples = 5, .batch_size = 2, .steps = 4}), RoundKind::kTrain),
              ElementsAre(Entry{0, 0, 0, 2}, Entry{1, 0, 2, 2}, Entry{2, 0, 4, 1}, Entry{3, 1, 0, 2}));
}

TEST(TimelineTest, DropLastLeavesTheSmallerBatchOut) {
  EXPECT_THAT(OfKind(Walk({.samples = 5, .batch_size = 2, .steps = 3, .drop_last = true}), RoundKind::kTrain),
              ElementsAre(Entry{0, 0, 0, 2}, Entry{1, 0, 2, 2}, Entry{2, 1, 0, 2}));
}

TEST(TimelineTest, ABatchLargerThanTheDataSetIsTheDataSet) {
  EXPECT_THAT(OfKind(Walk({.samples = 3, .batch_size = 8, .steps = 2}), RoundKind::kTrain),
              ElementsAre(Entry{0, 0, 0, 3}, Entry{1, 1, 0, 3}));
}

TEST(TimelineTest, StepsPerEpochCountTheUnevenBatchUnlessDropped) {
  EXPECT_EQ(StepsPerEpoch(5, 2, false), 3);
  EXPECT_EQ(StepsPerEpoch(5, 2, true), 2);
  EXPECT_EQ(StepsPerEpoch(4, 2, false), 2);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(StepsPerEpoch(20, kMost, false), 1);
  EXPECT_EQ(StepsPerEpoch(kMost, kMost - 1, false), 2);
}

TEST(TimelineTest, EvaluatesEveryNStepsAndAfterTheLast) {
  EXPECT_EQ(Kinds({.samples = 8, .batch_size = 2, .steps = 5, .evaluate_every = 2, .evaluation_samples = 3}),
            "TTEETTEETSEE");
}

TEST(TimelineTest, TheEvaluationAfterTheLastStepRunsOnce) {
  EXPECT_EQ(Kinds({.samples = 8, .batch_size = 2, .steps = 4, .evaluate_every = 2, .evaluation_samples = 2}),
            "TTETTSE");
}

TEST(TimelineTest, EvaluatesOnlyAtTheEndWithoutACadence) {
  EXPECT_EQ(Kinds({.samples = 8, .batch_size = 2, .steps = 3, .evaluation_samples = 2}), "TTTSE");
}

TEST(TimelineTest, NothingToEvaluateMeansNoEvaluation) {
  EXPECT_EQ(Kinds({.samples = 8, .batch_size = 2, .steps = 3, .evaluate_every = 1}), "TTT");
}

TEST(TimelineTest, AnEvaluationEndsWithItsLastUnevenBatch) {
  std::vector<Round> rounds = Walk({.samples = 4, .batch_size = 4, .steps = 1, .evaluation_samples = 9});
  EXPECT_THAT(OfKind(rounds, RoundKind::kEvaluate),
              ElementsAre(Entry{1, 0, 0, 4}, Entry{1, 0, 4, 4}, Entry{1, 0, 8, 1}));
  EXPECT_FALSE(rounds[3].last_of_kind);
  EXPECT_TRUE(rounds[4].last_of_kind);
}

TEST(TimelineTest, ACheckpointComesAfterTheEvaluationOfItsStep) {
  EXPECT_EQ(Kinds({.samples = 8,
                   .batch_size = 2,
                   .steps = 5,
                   .evaluate_every = 4,
                   .evaluation_samples = 2,
                   .checkpoint_every = 2}),
            "TTCTTECTSE");
}

TEST(TimelineTest, ACheckpointSaysHowManyStepsAreDone) {
  EXPECT_THAT(OfKind(Walk({.samples = 8, .batch_size = 2, .steps = 4, .checkpoint_every = 2}), RoundKind::kCheckpoint),
              ElementsAre(Entry{2, 0, 0, 0}, Entry{4, 0, 0, 0}));
}

TEST(TimelineTest, InferenceTakesEverySampleOnceInOrder) {
  const std::vector<Round> rounds = Walk({.samples = 5, .batch_size = 2});
  EXPECT_THAT(OfKind(rounds, RoundKind::kInfer), ElementsAre(Entry{0, 0, 0, 2}, Entry{0, 0, 2, 2}, Entry{0, 0, 4, 1}));
  EXPECT_TRUE(rounds.back().last_of_kind);
  EXPECT_FALSE(rounds.front().last_of_kind);
}

TEST(TimelineTest, TheLossIsLookedAtFirstOverTwoPartsAndBoth) {
  const TimelineSpec spec{.samples = 5, .batch_size = 4, .steps = 3, .checkpoint_every = 2, .check_loss_samples = 2};
  EXPECT_EQ(Kinds(spec), "LLLTTCT");
  EXPECT_EQ(CountRounds(spec), 7);
  const std::vector<Round> rounds = Walk(spec);
  EXPECT_THAT(OfKind(rounds, RoundKind::kCheckLoss),
              ElementsAre(Entry{0, 0, 0, 2}, Entry{0, 0, 2, 2}, Entry{0, 0, 0, 4}));
  EXPECT_FALSE(rounds[1].last_of_kind);
  EXPECT_TRUE(rounds[2].last_of_kind);
}

TEST(TimelineTest, NothingIsLeftWhenTheCheckpointHasAllSteps) {
  const TimelineSpec spec{
      .samples = 8, .batch_size = 2, .steps = 4, .evaluate_every = 1, .evaluation_samples = 2, .first_step = 6};
  EXPECT_THAT(Walk(spec), IsEmpty());
  EXPECT_EQ(CountRounds(spec), 0);
}

// A job that dies at any moment and starts again from its newest checkpoint has every evaluation.
TEST(TimelineTest, NoEvaluationIsLostBetweenACheckpointAndTheRestartFromIt) {
  TimelineSpec spec{
      .samples = 8, .batch_size = 2, .steps = 6, .evaluate_every = 2, .evaluation_samples = 3, .checkpoint_every = 3};
  const std::vector<Round> whole = Walk(spec);
  for (size_t died = 0; died <= whole.size(); ++died) {
    std::vector<Round> done(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(died));
    const auto saved = OfKind(done, RoundKind::kCheckpoint);
    spec.first_step = saved.empty() ? 0 : std::get<0>(saved.back());
    std::set<Entry> evaluated;
    for (const std::vector<Round>& rounds : {done, Walk(spec)}) {
      const auto entries = OfKind(rounds, RoundKind::kEvaluate);
      evaluated.insert(entries.begin(), entries.end());
    }
    EXPECT_EQ(evaluated.size(), OfKind(whole, RoundKind::kEvaluate).size()) << "died after " << died << " rounds";
  }
}

TEST(TimelineTest, ACopyWalksOnByItself) {
  RoundCursor cursor({.samples = 8, .batch_size = 2, .steps = 3});
  cursor.Next();
  RoundCursor copy = cursor;
  const std::optional<Round> next = cursor.Next();
  cursor.Next();
  EXPECT_EQ(copy.Next(), next);
}

std::vector<TimelineSpec> RandomSpecs() {
  std::mt19937 random(3);
  const auto upto = [&](int limit) { return static_cast<int64_t>(random() % (limit + 1)); };
  std::vector<TimelineSpec> specs(1000);
  for (TimelineSpec& spec : specs) {
    spec = {.samples = 1 + upto(20),
            .batch_size = 1 + upto(7),
            .steps = upto(25),
            .evaluate_every = upto(6),
            .evaluation_samples = upto(12),
            .checkpoint_every = upto(6)};
    spec.drop_last = spec.samples >= spec.batch_size && upto(1) == 1;
    spec.first_step = spec.steps == 0 ? 0 : upto(spec.steps);
  }
  return specs;
}

TEST(TimelineTest, CountRoundsEqualsWalkingAndIndicesRunFromZero) {
  for (const TimelineSpec& spec : RandomSpecs()) {
    const std::vector<Round> rounds = Walk(spec);
    ASSERT_EQ(CountRounds(spec), static_cast<int64_t>(rounds.size()));
    for (size_t i = 0; i < rounds.size(); ++i) ASSERT_EQ(rounds[i].index, static_cast<int64_t>(i));
  }
}

TEST(TimelineTest, ResumingGivesExactlyTheTailOfTheUninterruptedSequence) {
  for (TimelineSpec spec : RandomSpecs()) {
    if (spec.steps == 0 || spec.first_step == spec.steps) continue;
    const std::vector<Round> resumed = Walk(spec);
    const int64_t first_step = std::exchange(spec.first_step, 0);
    std::vector<Round> tail = Walk(spec);
    // From the training of that step on: a checkpoint comes before the evaluation of the steps it holds.
    const auto begin = std::find_if(tail.begin(), tail.end(), [&](const Round& round) {
      return round.kind == RoundKind::kTrain && round.step == first_step;
    });
    tail.erase(tail.begin(), begin);
    for (size_t i = 0; i < tail.size(); ++i) tail[i].index = static_cast<int64_t>(i);
    ASSERT_EQ(resumed, tail);
  }
}

}  // namespace
}  // namespace gpipe::pipeline
