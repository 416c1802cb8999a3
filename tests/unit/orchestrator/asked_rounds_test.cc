#include "orchestrator/scheduling/asked_rounds.h"

#include "common/field_error.h"
#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;

class AskedRoundsTest : public testing::Test {
 protected:
  AskedRoundsTest() {
    const InputFacts facts = Facts(8, {4});
    plan_ = MakePlan({spec_, facts, LayersFor(spec_.model(), {4}, 0), {2, 1}, 2}).value();
    rounds_.emplace(spec_, &plan_);
  }

  static v1::AskedRound Asked(v1::RoundKind kind) {
    v1::AskedRound asked;
    asked.set_kind(kind);
    return asked;
  }
  static v1::AskedRound Forward(int64_t batch_size) {
    v1::AskedRound asked = Asked(v1::ROUND_KIND_FORWARD);
    asked.set_batch_size(batch_size);
    asked.mutable_data()->set_shared_path("/dev/shm/gpipe-test/x");
    return asked;
  }
  static v1::AskedRound Backward(int64_t forward) {
    v1::AskedRound asked = Asked(v1::ROUND_KIND_BACKWARD);
    asked.set_forward(forward);
    asked.mutable_data()->set_shared_path("/dev/shm/gpipe-test/g");
    return asked;
  }
  // The field that is refused.
  std::string Refused(const v1::AskedRound& asked) {
    const std::vector<FieldViolation> violations = FieldViolations(rounds_->Ask(asked));
    EXPECT_EQ(violations.size(), 1u);
    return violations.empty() ? "" : violations.front().field;
  }
  const v1::Program& ProgramOf(const v1::Round& round) const { return plan_.programs(round.program()); }

  const v1::JobSpec spec_ = ParseSpec(kClientYaml);
  v1::Plan plan_;
  std::optional<AskedRounds> rounds_;
};

TEST_F(AskedRoundsTest, AProgramIsTheWholeOnesPart) {
  std::vector<std::string> programs;
  for (const v1::Program& program : plan_.programs()) {
    programs.push_back(absl::StrCat(v1::ProgramKind_Name(program.kind()).substr(13), " ", program.batch_size(), ", ",
                                    program.cycles(), " cycles"));
  }
  EXPECT_THAT(programs, ElementsAre("TRAIN 8, 11 cycles", "FORWARD 8, 5 cycles", "BACKWARD 8, 5 cycles",
                                    "UPDATE 0, 1 cycles", "INFER 8, 5 cycles"));
  for (const v1::Program& program : plan_.programs()) {
    for (const v1::Row& row : program.rows()) {
      for (const v1::Action& action : row.actions()) EXPECT_LT(action.cycle(), program.cycles());
    }
  }
}

TEST_F(AskedRoundsTest, ComeInTheirOrderWithTheirPrograms) {
  ASSERT_TRUE(rounds_->Ask(Forward(8)).ok());
  ASSERT_TRUE(rounds_->Ask(Backward(0)).ok());
  v1::AskedRound update = Asked(v1::ROUND_KIND_UPDATE);
  ASSERT_TRUE(rounds_->Ask(update).ok());
  update.set_learning_rate(0);
  ASSERT_TRUE(rounds_->Ask(update).ok());
  EXPECT_EQ(ProgramOf(*rounds_->Next()).kind(), v1::PROGRAM_KIND_FORWARD);
  const v1::Round backward = *rounds_->Next();
  EXPECT_EQ(ProgramOf(backward).kind(), v1::PROGRAM_KIND_BACKWARD);
  EXPECT_EQ(backward.index(), 1);
  EXPECT_EQ(backward.forward(), 0);
  EXPECT_EQ(backward.batch_size(), 8) << "as its forward";
  EXPECT_EQ(rounds_->Next()->learning_rate(), 0.1) << "the optimizer's own";
  EXPECT_EQ(rounds_->Next()->learning_rate(), 0);
  EXPECT_EQ(rounds_->Next(), std::nullopt);
  EXPECT_FALSE(rounds_->over());
}

TEST_F(AskedRoundsTest, AnotherSizeHasProgramsOfItsOwnWhichAreToldOnce) {
  EXPECT_THAT(rounds_->TakeNewPrograms(), testing::IsEmpty());
  ASSERT_TRUE(rounds_->Ask(Forward(8)).ok());
  EXPECT_THAT(rounds_->TakeNewPrograms(), testing::IsEmpty());
  ASSERT_TRUE(rounds_->Ask(Forward(3)).ok());
  EXPECT_THAT(rounds_->TakeNewPrograms(), ElementsAre(5, 6, 7)) << "the update has no size";
  ASSERT_TRUE(rounds_->Ask(Forward(3)).ok());
  EXPECT_THAT(rounds_->TakeNewPrograms(), testing::IsEmpty());
  rounds_->Next();
  EXPECT_EQ(ProgramOf(*rounds_->Next()).micro_batch_sizes_size(), 3) << "no more than samples";
}

TEST_F(AskedRoundsTest, WhatMakesNoSenseIsRefusedByField) {
  EXPECT_EQ(Refused(Asked(v1::ROUND_KIND_TRAIN)), "round.kind");
  EXPECT_EQ(Refused(Asked(v1::ROUND_KIND_STORE_MODEL)), "round.kind");
  EXPECT_EQ(Refused(Asked(static_cast<v1::RoundKind>(99))), "round.kind");
  EXPECT_EQ(Refused(Forward(0)), "round.batch_size");
  EXPECT_EQ(Refused(Backward(0)), "round.forward");
  v1::AskedRound elsewhere = Forward(8);
  for (const char* path : {"/etc/passwd", "/dev/shm/gpipe-test/../x", "/dev/shm/gpipe-test/a/b"}) {
    elsewhere.mutable_data()->set_shared_path(path);
    EXPECT_EQ(Refused(elsewhere), "round.data.shared_path");
  }
  elsewhere.mutable_data()->clear_shared_path();
  EXPECT_EQ(Refused(elsewhere), "round.data.sha256");
  v1::AskedRound update = Asked(v1::ROUND_KIND_UPDATE);
  update.set_learning_rate(-1);
  EXPECT_EQ(Refused(update), "round.learning_rate");
  v1::AskedRound state = Asked(v1::ROUND_KIND_GET_STATE);
  EXPECT_EQ(Refused(state), "round.state");
  state.set_state(static_cast<v1::StateKind>(99));
  EXPECT_EQ(Refused(state), "round.state");
  EXPECT_EQ(rounds_->asked(), 0);
}

// What a prediction may have, training may not.
TEST_F(AskedRoundsTest, AMicroBatchThatIsTooSmallForStatisticsIsRefusedAlsoAfterAPredictionOfItsSize) {
  plan_.mutable_layers(0)->add_values_per_channel()->set_per_sample(1);
  v1::AskedRound predict = Forward(4);
  predict.set_kind(v1::ROUND_KIND_PREDICT);
  ASSERT_TRUE(rounds_->Ask(predict).ok());
  EXPECT_EQ(Refused(Forward(4)), "train.batch_size") << "four micro-batches of one sample";
  EXPECT_TRUE(rounds_->Ask(Forward(8)).ok());
}

TEST_F(AskedRoundsTest, AForwardGoesBackOnce) {
  ASSERT_TRUE(rounds_->Ask(Forward(8)).ok());
  ASSERT_TRUE(rounds_->Ask(Forward(8)).ok());
  ASSERT_TRUE(rounds_->Ask(Backward(0)).ok());
  EXPECT_EQ(Refused(Backward(0)), "round.forward");
  v1::AskedRound drop = Asked(v1::ROUND_KIND_DROP);
  drop.set_forward(1);
  ASSERT_TRUE(rounds_->Ask(drop).ok());
  EXPECT_EQ(Refused(Backward(1)), "round.forward");
}

TEST_F(AskedRoundsTest, TheEndStoresTheModel) {
  ASSERT_TRUE(rounds_->Ask(Forward(8)).ok());
  rounds_->Close();
  EXPECT_TRUE(absl::IsFailedPrecondition(rounds_->Ask(Forward(8))));
  rounds_->Next();
  EXPECT_FALSE(rounds_->over());
  const v1::Round last = *rounds_->Next();
  EXPECT_EQ(last.kind(), v1::ROUND_KIND_STORE_MODEL);
  EXPECT_EQ(last.index(), 1);
  EXPECT_TRUE(rounds_->over());
}

TEST_F(AskedRoundsTest, TooManyAreRefused) {
  for (size_t i = 0; i < AskedRounds::kMaxWaiting; ++i) {
    ASSERT_TRUE(rounds_->Ask(Asked(v1::ROUND_KIND_ZERO_GRADIENTS)).ok());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(rounds_->Ask(Asked(v1::ROUND_KIND_ZERO_GRADIENTS))));
}

}  // namespace
}  // namespace gpipe::orchestrator
