#include "orchestrator/planning/job_rounds.h"

#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

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

}  // namespace
}  // namespace gpipe::orchestrator
