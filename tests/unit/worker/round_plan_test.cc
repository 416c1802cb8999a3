#include "worker/engine/round_plan.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

using testing::HasSubstr;

// One stage on one worker, with a program for training and one for evaluation, of four samples each.
v1::Plan TwoPrograms() {
  v1::Plan plan;
  plan.add_stages();
  plan.add_layers();
  plan.add_stage_worker(0);
  for (const v1::ProgramKind kind : {v1::PROGRAM_KIND_TRAIN, v1::PROGRAM_KIND_EVALUATE}) {
    v1::Program& program = *plan.add_programs();
    program.set_kind(kind);
    program.set_batch_size(4);
    program.add_micro_batch_sizes(3);
    program.add_micro_batch_sizes(1);
    program.set_cycles(2);
    program.add_rows();
  }
  return plan;
}

v1::Round RoundOf(v1::RoundKind kind, int64_t batch_size, int program) {
  v1::Round round;
  round.set_kind(kind);
  round.set_batch_size(batch_size);
  round.set_program(program);
  round.set_learning_rate(0.5);
  return round;
}

TEST(ProgramTable, FindsTheProgramThatARoundNames) {
  const v1::Plan plan_of_two = TwoPrograms();
  const ProgramTable table = *ProgramTable::Create(plan_of_two, 0);
  const absl::StatusOr<RoundPlan> train = table.Find(RoundOf(v1::ROUND_KIND_TRAIN, 4, 0));
  ASSERT_TRUE(train.ok()) << train.status();
  EXPECT_EQ(train->program->kind, v1::PROGRAM_KIND_TRAIN);
  EXPECT_THAT(train->program->offsets, testing::ElementsAre(0, 3));
  EXPECT_EQ(train->told.learning_rate(), 0.5);
  EXPECT_EQ(table.Find(RoundOf(v1::ROUND_KIND_EVALUATE, 4, 1))->program->kind, v1::PROGRAM_KIND_EVALUATE);
}

TEST(ProgramTable, WhatComputesNothingHasAnEmptyProgram) {
  const v1::Plan plan_of_two = TwoPrograms();
  const ProgramTable table = *ProgramTable::Create(plan_of_two, 0);
  for (const v1::RoundKind kind : {v1::ROUND_KIND_CHECKPOINT, v1::ROUND_KIND_STORE_MODEL}) {
    const absl::StatusOr<RoundPlan> plan = table.Find(RoundOf(kind, 0, -1));
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_TRUE(plan->program->row.empty());
    EXPECT_EQ(plan->program->cycles, 1);
  }
}

TEST(ProgramTable, RefusesARoundWhoseProgramIsOfAnotherKindOrSizeOrNotThere) {
  const v1::Plan plan_of_two = TwoPrograms();
  const ProgramTable table = *ProgramTable::Create(plan_of_two, 0);
  for (const v1::Round& round :
       {RoundOf(v1::ROUND_KIND_TRAIN, 4, 1), RoundOf(v1::ROUND_KIND_TRAIN, 3, 0), RoundOf(v1::ROUND_KIND_TRAIN, 4, 2),
        RoundOf(v1::ROUND_KIND_INFER, 4, 0), RoundOf(v1::ROUND_KIND_TRAIN, 4, -1)}) {
    const absl::Status status = table.Find(round).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr("is none"));
  }
  EXPECT_FALSE(table.Find(RoundOf(v1::ROUND_KIND_UNSPECIFIED, 4, 0)).ok());
}

}  // namespace
}  // namespace gpipe::worker
