#include "worker/engine/round_plan.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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

// Three stages on three workers; values go from the first to both others, two of them to the second.
class TransferTest : public testing::Test {
 protected:
  TransferTest() {
    plan_ = TwoPrograms();
    plan_.clear_stage_worker();
    for (int stage = 0; stage < 3; ++stage) plan_.add_stage_worker(stage);
    for (int stage = 1; stage < 3; ++stage) {
      plan_.add_stages();
      plan_.add_layers();
    }
    for (const int to_stage : {1, 2, 1}) {
      v1::Edge& edge = *plan_.add_edges();
      edge.set_to_stage(to_stage);
      edge.set_requires_grad(true);
    }
  }

  void Add(v1::ActionKind kind, int micro_batch, int edge = -1) {
    v1::Action& action = *plan_.mutable_programs(0)->mutable_rows(0)->add_actions();
    action.set_kind(kind);
    action.set_micro_batch(micro_batch);
    action.set_edge(edge);
  }

  v1::Plan plan_;
};

TEST_F(TransferTest, ValuesBetweenTheSameStagesAreMovedTogether) {
  for (const int micro_batch : {0, 1}) {
    Add(v1::ACTION_KIND_FORWARD, micro_batch);
    for (const int edge : {0, 1, 2}) Add(v1::ACTION_KIND_SEND_FORWARD, micro_batch, edge);
  }
  for (const int edge : {2, 0}) Add(v1::ACTION_KIND_RECV_BACKWARD, 1, edge);
  Add(v1::ACTION_KIND_BACKWARD, 1);
  const absl::StatusOr<ProgramTable> table = ProgramTable::Create(plan_, 0);
  ASSERT_TRUE(table.ok()) << table.status();
  std::vector<std::string> steps;
  for (const Step& step : table->Find(RoundOf(v1::ROUND_KIND_TRAIN, 4, 0))->program->row) {
    steps.push_back(absl::StrCat(std::string(pipeline::KindName(step.action.kind)), step.action.micro_batch, " ",
                                 absl::StrJoin(step.edges, ",")));
  }
  EXPECT_THAT(steps, testing::ElementsAre("F0 ", "SEND_F0 0,2", "SEND_F0 1", "F1 ", "SEND_F1 0,2", "SEND_F1 1",
                                          "RECV_B1 0,2", "B1 "));
}

// The other worker would take them for one transfer.
TEST_F(TransferTest, ValuesOfABoundaryThatAreApartAreRefused) {
  Add(v1::ACTION_KIND_FORWARD, 0);
  Add(v1::ACTION_KIND_SEND_FORWARD, 0, 0);
  Add(v1::ACTION_KIND_FORWARD, 1);
  Add(v1::ACTION_KIND_SEND_FORWARD, 0, 2);
  const absl::Status refused = ProgramTable::Create(plan_, 0).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("is apart from"));
}

TEST_F(TransferTest, AValueIsSentByTheStageThatHasIt) {
  Add(v1::ACTION_KIND_RECV_FORWARD, 0, 0);
  const absl::Status refused = ProgramTable::Create(plan_, 0).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("impossible action 0RECV_F0"));
}

}  // namespace
}  // namespace gpipe::worker
