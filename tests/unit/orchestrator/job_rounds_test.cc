#include "orchestrator/planning/job_rounds.h"

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/spec/reader.h"
#include "common/spec/validator.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/planning/lr_schedule.h"
#include "tests/unit/all_rounds.h"

namespace gpipe::orchestrator {
namespace {

v1::Train TrainOf(const std::string& train) {
  v1::JobSpec spec;
  spec::SourceMap lines;
  EXPECT_TRUE(spec::ReadYaml("train: {" + train + "}", spec, lines).ok());
  return spec::WithDefaults(spec).train();
}

double Rate(const std::string& schedule, int64_t step, int64_t total) {
  const v1::Train train = TrainOf("optimizer: {sgd: {lr: 0.8}}, lr_schedule: {" + schedule + "}");
  return LearningRate(train, train.lr_schedule(), step, total);
}

TEST(LearningRateTest, FollowsEachSchedule) {
  EXPECT_DOUBLE_EQ(Rate("constant: {}", 5, 10), 0.8);
  EXPECT_DOUBLE_EQ(Rate("step: {step_size: 3}", 2, 10), 0.8);
  EXPECT_DOUBLE_EQ(Rate("step: {step_size: 3, gamma: 0.5}", 7, 10), 0.2);
  for (const std::string kind : {"warmup_linear", "warmup_cosine"}) {
    const std::string schedule = kind + ": {warmup_steps: 4, final_lr: 0.1}";
    EXPECT_DOUBLE_EQ(Rate(schedule, 0, 13), 0.2);
    EXPECT_DOUBLE_EQ(Rate(schedule, 3, 13), 0.8);
    EXPECT_DOUBLE_EQ(Rate(schedule, 4, 13), 0.8);
    EXPECT_DOUBLE_EQ(Rate(schedule, 8, 13), 0.45) << "half way down";
    EXPECT_DOUBLE_EQ(Rate(schedule, 12, 13), 0.1);
  }
  EXPECT_DOUBLE_EQ(Rate("warmup_linear: {warmup_steps: 4, final_lr: 0.1}", 6, 13), 0.8 - 0.7 / 4);
  EXPECT_DOUBLE_EQ(Rate("warmup_cosine: {warmup_steps: 4, final_lr: 0.1}", 6, 13),
                   0.1 + 0.7 * (1 + std::cos(std::acos(-1) / 4)) / 2);
}

TEST(LearningRateTest, SurvivesSchedulesLongerThanTheJob) {
  EXPECT_DOUBLE_EQ(Rate("warmup_cosine: {warmup_steps: 8}", 1, 2), 0.2);
  EXPECT_DOUBLE_EQ(Rate("warmup_linear: {warmup_steps: 0, final_lr: 0.3}", 0, 1), 0.8);
}

// Three samples in batches of two, with evaluation and checkpoints.
v1::Plan SmallPlan() {
  v1::Plan plan;
  v1::Timeline& timeline = *plan.mutable_timeline();
  timeline.set_samples(3);
  timeline.set_batch_size(2);
  timeline.set_steps(2);
  timeline.set_checkpoint_every(2);
  timeline.set_evaluation_samples(2);
  for (const auto& [kind, size] : {std::pair(v1::PROGRAM_KIND_TRAIN, 2), std::pair(v1::PROGRAM_KIND_TRAIN, 1),
                                   std::pair(v1::PROGRAM_KIND_EVALUATE, 2)}) {
    v1::Program& program = *plan.add_programs();
    program.set_kind(kind);
    program.set_batch_size(size);
  }
  return plan;
}

TEST(JobRoundsTest, EachRoundHasItsProgramAndItsRate) {
  v1::JobSpec spec;
  *spec.mutable_train() = TrainOf("optimizer: {sgd: {lr: 0.8}}, lr_schedule: {step: {step_size: 1, gamma: 0.5}}");
  const v1::Rounds rounds = AllRounds(spec, SmallPlan());
  EXPECT_TRUE(rounds.complete());
  std::vector<std::tuple<v1::RoundKind, int, double>> found;
  for (const v1::Round& round : rounds.rounds()) {
    found.emplace_back(round.kind(), round.program(), round.learning_rate());
  }
  EXPECT_THAT(found, testing::ElementsAre(
                         std::tuple(v1::ROUND_KIND_TRAIN, 0, 0.8), std::tuple(v1::ROUND_KIND_TRAIN, 1, 0.4),
                         std::tuple(v1::ROUND_KIND_STORE_MODEL, -1, 0), std::tuple(v1::ROUND_KIND_EVALUATE, 2, 0),
                         std::tuple(v1::ROUND_KIND_CHECKPOINT, -1, 0)));
}

// As many steps, one sample each.
v1::Plan PlanOf(int64_t steps, int64_t evaluate_every, int64_t checkpoint_every) {
  v1::Plan plan;
  v1::Timeline& timeline = *plan.mutable_timeline();
  timeline.set_samples(steps);
  timeline.set_batch_size(1);
  timeline.set_steps(steps);
  timeline.set_evaluate_every(evaluate_every);
  timeline.set_evaluation_samples(evaluate_every > 0 ? 1 : 0);
  timeline.set_checkpoint_every(checkpoint_every);
  return plan;
}

// `T0 T1 E2 C2`: kinds with their steps; to the end, or to where there is no more for now.
std::string WalkOn(JobRounds& rounds) {
  const std::map<v1::RoundKind, std::string> letters = {{v1::ROUND_KIND_TRAIN, "T"},
                                                        {v1::ROUND_KIND_EVALUATE, "E"},
                                                        {v1::ROUND_KIND_CHECKPOINT, "C"},
                                                        {v1::ROUND_KIND_STORE_MODEL, "S"}};
  std::vector<std::string> words;
  while (const std::optional<v1::Round> round = rounds.Next()) {
    words.push_back(absl::StrCat(letters.at(round->kind()), round->step()));
  }
  return absl::StrJoin(words, " ");
}

using Then = RoundSource::Then;

TEST(JobRoundsTest, ACheckpointThatIsAskedForIsARoundMore) {
  JobRounds rounds({}, PlanOf(4, 0, 0));
  EXPECT_EQ(rounds.Next()->index(), 0);
  EXPECT_EQ(rounds.AddCheckpoint(Then::kGoOn), 1);
  EXPECT_EQ(rounds.AddCheckpoint(Then::kGoOn), 1) << "the same one";
  EXPECT_EQ(rounds.Next()->index(), 1);
  EXPECT_EQ(rounds.Next()->index(), 2) << "without a gap";
  EXPECT_EQ(WalkOn(rounds), "T2 T3");
  EXPECT_TRUE(rounds.over());
  EXPECT_EQ(rounds.AddCheckpoint(Then::kGoOn), std::nullopt);
}

TEST(JobRoundsTest, ItComesAfterTheEvaluationOfItsStep) {
  JobRounds rounds({}, PlanOf(4, 2, 0));
  rounds.Next();
  rounds.Next();
  EXPECT_EQ(rounds.AddCheckpoint(Then::kGoOn), 2);
  EXPECT_EQ(WalkOn(rounds), "E2 C2 T2 T3 S4 E4");
}

TEST(JobRoundsTest, ThereIsOneOfEachStep) {
  JobRounds rounds({}, PlanOf(4, 0, 2));
  rounds.Next();
  rounds.Next();
  EXPECT_EQ(rounds.AddCheckpoint(Then::kGoOn), 2);
  EXPECT_EQ(WalkOn(rounds), "C2 T2 T3 C4");
}

TEST(JobRoundsTest, NothingFollowsTheLastOne) {
  JobRounds rounds({}, PlanOf(4, 2, 0));
  rounds.Next();
  EXPECT_EQ(rounds.AddCheckpoint(Then::kStop), 1);
  EXPECT_EQ(rounds.AddCheckpoint(Then::kGoOn), 1);
  EXPECT_EQ(WalkOn(rounds), "C1");
  EXPECT_FALSE(rounds.over());
  EXPECT_EQ(rounds.AddCheckpoint(Then::kStop), 1);
  EXPECT_EQ(WalkOn(rounds), "");
}

TEST(JobRoundsTest, WhatAnAttemptBeganWithIsSaved) {
  v1::Plan plan = PlanOf(4, 0, 0);
  plan.mutable_timeline()->set_first_step(2);
  JobRounds rounds({}, plan);
  EXPECT_EQ(rounds.AddCheckpoint(Then::kStop), 2);
  EXPECT_EQ(WalkOn(rounds), "");
}

TEST(JobRoundsTest, NoStepIsToComeInInferenceOrAfterTheLast) {
  v1::Plan inference = PlanOf(0, 0, 0);
  inference.mutable_timeline()->set_samples(4);
  EXPECT_EQ(JobRounds({}, inference).AddCheckpoint(Then::kGoOn), std::nullopt);
  JobRounds rounds({}, PlanOf(1, 1, 0));
  rounds.Next();
  EXPECT_EQ(rounds.AddCheckpoint(Then::kStop), std::nullopt);
  EXPECT_EQ(WalkOn(rounds), "S1 E1");
}

}  // namespace
}  // namespace gpipe::orchestrator
