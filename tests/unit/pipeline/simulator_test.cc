#include "pipeline/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/pipeline/schedules.h"

namespace gpipe::pipeline {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

std::vector<StageCost> Uniform(int stages, StageCost cost = {.forward = 1, .backward = 1, .recompute = 1}) {
  return std::vector<StageCost>(stages, cost);
}

SimulatedTimeline SimulateChain(const ScheduleOptions& options, const std::vector<StageCost>& costs,
                                double edge_seconds = 0) {
  const std::vector<Edge> edges = Chain(options.stages);
  return Simulate(Lowered(options, edges), edges, costs,
                  std::vector<EdgeSeconds>(edges.size(), {edge_seconds, edge_seconds}))
      .value();
}

TEST(SimulatorTest, UnitCostsGiveExactlyGPipesBubble) {
  for (int stages = 1; stages <= 8; ++stages) {
    for (int micro_batches = 1; micro_batches <= 16; ++micro_batches) {
      const SimulatedTimeline timeline =
          SimulateChain(Training(stages, micro_batches, CheckpointMode::kNever), Uniform(stages));
      EXPECT_DOUBLE_EQ(timeline.seconds, 2 * (micro_batches + stages - 1));
      EXPECT_NEAR(timeline.bubble_share, BubbleShare(stages, micro_batches), 1e-12);
    }
  }
}

TEST(SimulatorTest, RecomputingOverlapsTheWaitForTheGradient) {
  // The last stage's R, then B; the first recomputes meanwhile and needs only its B afterwards.
  const SimulatedTimeline timeline = SimulateChain(Training(2, 1, CheckpointMode::kAlways), Uniform(2));
  EXPECT_DOUBLE_EQ(timeline.seconds, 1 + 1 + 2 + 1);
}

TEST(SimulatorTest, RecomputingAddsItsTimeOncePerMicroBatchAndNotPerStage) {
  const StageCost cost{.forward = 1, .backward = 2, .recompute = 0.75};
  for (int stages = 1; stages <= 6; ++stages) {
    for (int micro_batches = 1; micro_batches <= 9; ++micro_batches) {
      const ScheduleOptions options = Training(stages, micro_batches, CheckpointMode::kAlways);
      EXPECT_DOUBLE_EQ(SimulateChain(options, Uniform(stages, cost)).seconds,
                       (micro_batches + stages - 1) * 3 + micro_batches * 0.75);
    }
  }
}

TEST(SimulatorTest, AValueArrivesAfterItsEdgesTime) {
  EXPECT_DOUBLE_EQ(SimulateChain(Training(2, 1, CheckpointMode::kNever), Uniform(2), 0.5).seconds, 4 + 2 * 0.5);
}

TEST(SimulatorTest, AFastStageIsNotFurtherAheadThanMessagesMayWait) {
  ScheduleOptions options = Training(2, 20);
  options.training = false;
  const SimulatedTimeline timeline = SimulateChain(options, {{.forward = 1}, {.forward = 100}});
  EXPECT_DOUBLE_EQ(timeline.seconds, 1 + 20 * 100);
  for (const SimulatedAction& entry : timeline.actions) {
    if (ToString(entry.action) == "0F19") {
      EXPECT_DOUBLE_EQ(entry.start, 1 + 10 * 100) << "0SEND_F18 goes when message 10 is received";
    }
  }
}

TEST(SimulatorTest, ReduceGradWaitsForTheSlowestWorker) {
  ScheduleOptions options = Training(2, 1, CheckpointMode::kNever);
  options.reduce_gradients = true;
  const SimulatedTimeline timeline = SimulateChain(options, Uniform(2, {.forward = 1, .backward = 1, .optimizer = 1}));
  EXPECT_DOUBLE_EQ(timeline.seconds, 5);
  for (const SimulatedAction& entry : timeline.actions) {
    if (entry.action.kind == ActionKind::kOptimizer) {
      EXPECT_DOUBLE_EQ(entry.start, 4);
    }
  }
}

TEST(SimulatorTest, ActionsComeByStartAndDoNotOverlapOnAWorker) {
  const SimulatedTimeline timeline = SimulateChain(Training(4, 6), Uniform(4), 0.25);
  std::vector<double> free_at(4, 0);
  double start = 0;
  for (const SimulatedAction& entry : timeline.actions) {
    EXPECT_GE(entry.start, start);
    EXPECT_GE(entry.start, free_at[entry.worker]);
    start = entry.start;
    free_at[entry.worker] = entry.end;
  }
}

// GPipe section 2.3: with N/M samples in a micro-batch, L/K layers on a stage and recomputation, a stage keeps the
// boundary of all micro-batches, N in sum, and the inside of one, L/K * N/M.
TEST(SimulatorTest, PeakMemoryWithRecomputeIsAllInputsAndOneInside) {
  const int64_t samples = 96, layers_per_stage = 6;
  for (int micro_batches : {1, 2, 4, 8, 16, 32}) {
    const int64_t input = samples / micro_batches, inside = layers_per_stage * input;
    const auto costs = Uniform(4, {.saved_bytes = inside, .input_bytes = input});
    EXPECT_THAT(SimulateChain(Training(4, micro_batches, CheckpointMode::kAlways), costs).peak_bytes,
                Each(samples + inside));
    EXPECT_THAT(SimulateChain(Training(4, micro_batches, CheckpointMode::kNever), costs).peak_bytes,
                Each(samples + layers_per_stage * samples));
  }
}

TEST(SimulatorTest, ExceptLastKeepsAllInputsAndTheInsideOfTheLast) {
  const auto costs = Uniform(2, {.saved_bytes = 10, .input_bytes = 1});
  EXPECT_THAT(SimulateChain(Training(2, 4), costs).peak_bytes, Each(4 * 1 + 10));
}

TEST(SimulatorTest, WithoutABackwardNothingIsKept) {
  ScheduleOptions options = Training(2, 8);
  options.training = false;
  EXPECT_THAT(SimulateChain(options, Uniform(2, {.saved_bytes = 10, .input_bytes = 1})).peak_bytes, Each(0));
}

TEST(SimulatorTest, CostsMustCoverStagesAndEdges) {
  const Schedule schedule = Lowered(Training(2, 1), Chain(2));
  EXPECT_EQ(Simulate(schedule, Chain(2), Uniform(1), {{}}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Simulate(schedule, Chain(2), Uniform(2), {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(SimulatorTest, AStandstillNamesEachWorkersNextAction) {
  Schedule schedule = Lowered(Training(2, 1), Chain(2));
  std::vector<Action>& row = schedule.rows[0];
  std::swap(row[PositionOf(row, "0SEND_F0@0")], row[PositionOf(row, "0RECV_B0@0")]);
  const absl::Status status = Simulate(schedule, Chain(2), Uniform(2), {{}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("w0 at 0RECV_B0@0 w1 at 1RECV_F0@0"));
}

}  // namespace
}  // namespace gpipe::pipeline
