#include "pipeline/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/pipeline/schedules.h"

namespace gpipe::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Cycle = std::vector<std::pair<int, int>>;  // Micro-batch, stage.

std::vector<Cycle> ForwardCycles(int micro_batches, int stages) {
  ScheduleOptions options = Training(stages, micro_batches);
  options.training = false;
  const Schedule schedule = GPipeSchedule(options).value();
  std::vector<Cycle> cycles(schedule.cycles);
  for (const auto& row : schedule.rows) {
    for (const Action& action : row) cycles[action.cycle].emplace_back(action.micro_batch, action.stage);
  }
  return cycles;
}

int CountKind(const std::vector<Action>& row, ActionKind kind) {
  return std::count_if(row.begin(), row.end(), [&](const Action& action) { return action.kind == kind; });
}

// The five cases that torchgpipe's own tests pin down.
TEST(ForwardCyclesTest, OneMicroBatchOneStage) { EXPECT_THAT(ForwardCycles(1, 1), ElementsAre(Cycle{{0, 0}})); }
TEST(ForwardCyclesTest, OneMicroBatchThreeStages) {
  EXPECT_THAT(ForwardCycles(1, 3), ElementsAre(Cycle{{0, 0}}, Cycle{{0, 1}}, Cycle{{0, 2}}));
}
TEST(ForwardCyclesTest, ThreeMicroBatchesOneStage) {
  EXPECT_THAT(ForwardCycles(3, 1), ElementsAre(Cycle{{0, 0}}, Cycle{{1, 0}}, Cycle{{2, 0}}));
}
TEST(ForwardCyclesTest, ThreeMicroBatchesThreeStages) {
  EXPECT_THAT(ForwardCycles(3, 3), ElementsAre(Cycle{{0, 0}}, Cycle{{1, 0}, {0, 1}}, Cycle{{2, 0}, {1, 1}, {0, 2}},
                                               Cycle{{2, 1}, {1, 2}}, Cycle{{2, 2}}));
}
TEST(ForwardCyclesTest, FourMicroBatchesTwoStages) {
  EXPECT_THAT(ForwardCycles(4, 2), ElementsAre(Cycle{{0, 0}}, Cycle{{1, 0}, {0, 1}}, Cycle{{2, 0}, {1, 1}},
                                               Cycle{{3, 0}, {2, 1}}, Cycle{{3, 1}}));
}

TEST(MakeScheduleTest, ThereIsGPipesAndUnknownKindsAreRefused) {
  const Schedule schedule = MakeSchedule(ScheduleKind::kGPipe, Training(3, 4)).value();
  EXPECT_EQ(ToText(schedule), ToText(GPipeSchedule(Training(3, 4)).value()));
  const absl::Status unknown = MakeSchedule(static_cast<ScheduleKind>(9), Training(3, 4)).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("no schedule of kind 9"));
}

TEST(GPipeScheduleTest, BackwardMirrorsForwardAndTheUpdateHasTheLastCycle) {
  const int stages = 3, micro_batches = 5, fill = micro_batches + stages - 1;
  const Schedule schedule = GPipeSchedule(Training(stages, micro_batches)).value();
  EXPECT_EQ(schedule.cycles, 2 * fill + 1);
  for (const auto& row : schedule.rows) {
    for (const Action& action : row) {
      const int i = action.micro_batch, j = action.stage;
      if (action.kind == ActionKind::kForward) {
        EXPECT_EQ(action.cycle, i + j);
      }
      if (action.kind == ActionKind::kBackward || action.kind == ActionKind::kRecompute) {
        EXPECT_EQ(action.cycle, fill + (micro_batches - 1 - i) + (stages - 1 - j));
      }
      if (action.kind == ActionKind::kOptimizer) {
        EXPECT_EQ(action.cycle, 2 * fill);
      }
    }
  }
}

TEST(GPipeScheduleTest, RecomputeComesRightBeforeItsBackward) {
  const Schedule schedule = GPipeSchedule(Training(1, 2, CheckpointMode::kAlways)).value();
  EXPECT_EQ(RowText(schedule.rows[0]), "0F0 0F1 0R1 0B1 0R0 0B0 0OPT");
}

TEST(GPipeScheduleTest, ExceptLastKeepsTheActivationsOfTheLastMicroBatch) {
  const Schedule schedule = GPipeSchedule(Training(1, 2)).value();
  EXPECT_EQ(RowText(schedule.rows[0]), "0F0 0F1 0B1 0R0 0B0 0OPT");
  EXPECT_TRUE(schedule.rows[0][0].checkpointed);
  EXPECT_FALSE(schedule.rows[0][1].checkpointed);
}

TEST(GPipeScheduleTest, NeverAndASingleMicroBatchExceptLastRecomputeNothing) {
  EXPECT_EQ(RowText(GPipeSchedule(Training(1, 2, CheckpointMode::kNever))->rows[0]), "0F0 0F1 0B1 0B0 0OPT");
  EXPECT_EQ(RowText(GPipeSchedule(Training(1, 1))->rows[0]), "0F0 0B0 0OPT");
}

TEST(GPipeScheduleTest, ForwardOnlyHasNoCheckpointAndNoUpdate) {
  ScheduleOptions options = Training(2, 2, CheckpointMode::kAlways);
  options.training = false;
  const Schedule schedule = GPipeSchedule(options).value();
  EXPECT_EQ(schedule.cycles, 3);
  EXPECT_EQ(RowText(schedule.rows[1]), "1F0 1F1");
  EXPECT_FALSE(schedule.rows[1][0].checkpointed);
}

TEST(GPipeScheduleTest, AStageWithoutBackwardOnlyGoesForward) {
  ScheduleOptions options = Training(2, 2, CheckpointMode::kAlways);
  options.needs_backward = {false, true};
  const Schedule schedule = GPipeSchedule(options).value();
  EXPECT_EQ(RowText(schedule.rows[0]), "0F0 0F1 0OPT");
  EXPECT_FALSE(schedule.rows[0][0].checkpointed);
  EXPECT_EQ(RowText(schedule.rows[1]), "1F0 1F1 1R1 1B1 1R0 1B0 1OPT");
}

TEST(GPipeScheduleTest, StagesOfOneWorkerGoUpInForwardAndDownInBackward) {
  ScheduleOptions options = Training(2, 2, CheckpointMode::kNever);
  options.stage_worker = {0, 0};
  options.reduce_gradients = true;
  EXPECT_EQ(RowText(GPipeSchedule(options)->rows[0]), "0F0 0F1 1F0 1F1 1B1 1B0 0B1 0B0 0REDUCE_GRAD 0OPT");
}

TEST(GPipeScheduleTest, EachWorkerUpdatesOnceUnderItsFirstStage) {
  ScheduleOptions options = Training(5, 2);
  options.stage_worker = {0, 0, 1, 1, 1};
  options.reduce_gradients = true;
  const Schedule schedule = GPipeSchedule(options).value();
  for (const auto& row : schedule.rows) {
    EXPECT_EQ(CountKind(row, ActionKind::kReduceGrad), 1);
    EXPECT_EQ(CountKind(row, ActionKind::kOptimizer), 1);
  }
  EXPECT_EQ(ToString(schedule.rows[1].back()), "2OPT");
}

TEST(GPipeScheduleTest, RefusesImpossibleOptions) {
  const auto error = [](auto change) {
    ScheduleOptions options = Training(2, 2);
    change(options);
    return std::string(GPipeSchedule(options).status().message());
  };
  EXPECT_THAT(error([](auto& o) { o.stages = 0; }), HasSubstr("at least one stage"));
  EXPECT_THAT(error([](auto& o) { o.micro_batches = 0; }), HasSubstr("at least one micro-batch"));
  EXPECT_THAT(error([](auto& o) { o.stage_worker = {0}; }), HasSubstr("names 1 workers for 2 stages"));
  EXPECT_THAT(error([](auto& o) { o.stage_worker = {0, 2}; }), HasSubstr("stage 1 is on worker 2"));
  EXPECT_THAT(error([](auto& o) { o.stage_worker = {1, 2}; }), HasSubstr("stage 0 is on worker 1"));
  EXPECT_THAT(error([](auto& o) { o.stage_worker = {-1, 0}; }), HasSubstr("stage 0 is on worker -1"));
  EXPECT_THAT(error([](auto& o) { o.needs_backward = {true}; }), HasSubstr("needs_backward"));
}

TEST(LoweringTest, ReceivesComeBeforeAndSendsAfterTheirWork) {
  const Schedule schedule = Lowered(Training(2, 1, CheckpointMode::kNever), Chain(2));
  EXPECT_EQ(RowText(schedule.rows[0]), "0F0 0SEND_F0@0 0RECV_B0@0 0B0 0OPT");
  EXPECT_EQ(RowText(schedule.rows[1]), "1RECV_F0@0 1F0 1B0 1SEND_B0@0 1OPT");
}

TEST(LoweringTest, RecomputeDoesNotWaitForTheGradient) {
  const Schedule schedule = Lowered(Training(2, 1, CheckpointMode::kAlways), Chain(2));
  EXPECT_EQ(RowText(schedule.rows[0]), "0F0 0SEND_F0@0 0R0 0RECV_B0@0 0B0 0OPT");
}

TEST(LoweringTest, ASkipGoesStraightAndEdgesComeInOrder) {
  std::vector<Edge> edges = Chain(3);
  edges.push_back({.value = "skip.s", .from_stage = 0, .to_stage = 2});
  const Schedule schedule = Lowered(Training(3, 1, CheckpointMode::kNever), edges);
  EXPECT_EQ(RowText(schedule.rows[0]), "0F0 0SEND_F0@0 0SEND_F0@2 0RECV_B0@0 0RECV_B0@2 0B0 0OPT");
  EXPECT_EQ(RowText(schedule.rows[1]), "1RECV_F0@0 1F0 1SEND_F0@1 1RECV_B0@1 1B0 1SEND_B0@0 1OPT");
  EXPECT_EQ(RowText(schedule.rows[2]), "2RECV_F0@1 2RECV_F0@2 2F0 2B0 2SEND_B0@1 2SEND_B0@2 2OPT");
}

TEST(LoweringTest, NoGradientComesBackWhereNoneIsNeeded) {
  std::vector<Edge> edges = Chain(2);
  edges[0].requires_grad = false;
  EXPECT_EQ(RowText(Lowered(Training(2, 1), edges).rows[0]), "0F0 0SEND_F0@0 0B0 0OPT");

  ScheduleOptions frozen = Training(2, 1);
  frozen.needs_backward = {false, true};
  const Schedule schedule = Lowered(frozen, Chain(2));
  EXPECT_EQ(RowText(schedule.rows[0]), "0F0 0SEND_F0@0 0OPT");
  EXPECT_EQ(RowText(schedule.rows[1]), "1RECV_F0@0 1F0 1B0 1OPT");
}

TEST(LoweringTest, StagesOfOneWorkerExchangeNothing) {
  ScheduleOptions options = Training(2, 2);
  options.stage_worker = {0, 0};
  EXPECT_EQ(Lowered(options, Chain(2)).rows, GPipeSchedule(options)->rows);
}

TEST(LoweringTest, ATransferHasTheCycleOfItsWork) {
  const Schedule schedule = Lowered(Training(3, 4), Chain(3));
  for (const auto& row : schedule.rows) {
    for (const Action& action : row) {
      if (!IsSend(action.kind) && !IsReceive(action.kind)) continue;
      const bool forward = action.kind == ActionKind::kSendForward || action.kind == ActionKind::kRecvForward;
      const std::string work =
          std::to_string(action.stage) + (forward ? "F" : "B") + std::to_string(action.micro_batch);
      EXPECT_EQ(action.cycle, row[PositionOf(row, work)].cycle) << ToString(action);
    }
  }
}

TEST(LoweringTest, AnEdgeMustGoToALaterStage) {
  for (const Edge& edge : {Edge{"x", 1, 1}, Edge{"x", 1, 0}, Edge{"x", -1, 1}, Edge{"x", 0, 2}}) {
    Schedule schedule = GPipeSchedule(Training(2, 1)).value();
    const absl::Status status = AddCommunication({edge}, schedule);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("edge 0 (x)"));
  }
}

}  // namespace
}  // namespace gpipe::pipeline
