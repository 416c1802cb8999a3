#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "pipeline/simulator.h"
#include "tests/unit/pipeline/schedules.h"

namespace gpipe::pipeline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Row = std::vector<Action>;

// Three stages, each on its own worker, three micro-batches, all recomputed, gradients clipped.
Schedule Sound() {
  ScheduleOptions options = Training(3, 3, CheckpointMode::kAlways);
  options.reduce_gradients = true;
  return Lowered(options, Chain(3));
}

// Two stages on one worker, before a third on another.
Schedule SoundShared() {
  ScheduleOptions options = Training(3, 2);
  options.stage_worker = {0, 0, 1};
  return Lowered(options, Chain(3));
}

// The validator's error, empty if it accepts.
std::string ErrorOf(const Schedule& schedule, const std::vector<Edge>& edges = Chain(3)) {
  const absl::Status status = ValidateSchedule(schedule, edges);
  EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

void Erase(Row& row, const std::string& token) { row.erase(row.begin() + PositionOf(row, token)); }

// Moves an action right before another, into its cycle.
void MoveBefore(Row& row, const std::string& token, const std::string& before) {
  Action action = row[PositionOf(row, token)];
  Erase(row, token);
  const size_t position = PositionOf(row, before);
  action.cycle = row[position].cycle;
  row.insert(row.begin() + position, action);
}

void Repeat(Row& row, const std::string& token) {
  const size_t position = PositionOf(row, token);
  row.insert(row.begin() + position, Action(row[position]));
}

TEST(ValidatorTest, AcceptsWhatTheBuilderAndTheLoweringMake) {
  EXPECT_EQ(ErrorOf(Sound()), "");
  EXPECT_EQ(ErrorOf(SoundShared()), "");
}

TEST(ValidatorTest, AcceptsAndRunsEveryShapeToTheEnd) {
  for (int stages = 1; stages <= 8; ++stages) {
    std::vector<Edge> edges = Chain(stages);
    if (stages > 2) edges.push_back({.value = "skip.s", .from_stage = 0, .to_stage = stages - 1});
    const std::vector<StageCost> costs(stages);
    const std::vector<EdgeSeconds> edge_seconds(edges.size(), {0.1, 0.1});
    for (int micro_batches = 1; micro_batches <= 16; ++micro_batches) {
      for (int workers = 1; workers <= stages; ++workers) {
        for (bool training : {true, false}) {
          ScheduleOptions options = Training(stages, micro_batches);
          options.stage_worker = SharedOut(stages, workers);
          options.training = training;
          options.reduce_gradients = workers % 2 == 0;
          const Schedule schedule = Lowered(options, edges);
          ASSERT_EQ(ErrorOf(schedule, edges), "") << stages << " " << micro_batches << " " << workers;
          ASSERT_TRUE(Simulate(schedule, edges, costs, edge_seconds).ok());
        }
      }
    }
  }
}

TEST(ValidatorTest, AcceptsSkipsOverMoreStagesThanMessagesMayWait) {
  const int stages = 20;
  std::vector<Edge> edges = Chain(stages);
  edges.push_back({.value = "skip.s", .from_stage = 0, .to_stage = stages - 1});
  for (const int workers : {2, 5, 20}) {
    ScheduleOptions options = Training(stages, 40);
    options.stage_worker = SharedOut(stages, workers);
    EXPECT_EQ(ErrorOf(Lowered(options, edges), edges), "") << workers;
  }
}

// Eleven micro-batches of two values that go from worker 0 to two stages on worker 1, which needs both for each.
Schedule TwoValues(std::vector<Edge>& edges) {
  edges = {{.value = "a", .from_stage = 0, .to_stage = 1},
           {.value = "b", .from_stage = 0, .to_stage = 2},
           {.value = "c", .from_stage = 1, .to_stage = 2}};
  ScheduleOptions options = Training(3, 11);
  options.stage_worker = {0, 1, 1};
  options.training = false;
  return Lowered(options, edges);
}

TEST(ValidatorTest, RefusesRowsThatNeedMoreMessagesUnderWayThanTheEngineHas) {
  std::vector<Edge> edges;
  Schedule schedule = TwoValues(edges);
  EXPECT_EQ(ErrorOf(schedule, edges), "");
  Row& row = schedule.rows[0];
  for (int i = 0; i < 10; ++i) MoveBefore(row, "0SEND_F" + std::to_string(i) + "@1", "0SEND_F10@1");
  EXPECT_THAT(ErrorOf(schedule, edges),
              AllOf(HasSubstr("w0 at 0SEND_F10@0 (8 before it are not received) w1 at 2RECV_F0@1"),
                    HasSubstr("<-- ERROR HERE")));
}

TEST(ValidatorTest, RefusesASendThatLockStepWouldNeverAllow) {
  std::vector<Edge> edges;
  Schedule schedule = TwoValues(edges);
  schedule.cycles += 20;
  for (Action& action : schedule.rows[1]) action.cycle += 20;
  EXPECT_THAT(ErrorOf(schedule, edges), HasSubstr("0SEND_F8@0: 1RECV_F0@0 comes only in cycle 21"));
}

// To the workers they are one transfer.
TEST(ValidatorTest, RefusesValuesOfABoundaryThatAreApart) {
  std::vector<Edge> edges = Chain(2);
  edges.push_back({.value = "skip.s", .from_stage = 0, .to_stage = 1});
  Schedule schedule = Lowered(Training(2, 3), edges);
  EXPECT_EQ(ErrorOf(schedule, edges), "");
  MoveBefore(schedule.rows[0], "0SEND_F0@1", "0SEND_F1@0");
  EXPECT_THAT(ErrorOf(schedule, edges), HasSubstr("0SEND_F0@1: it is apart from other values between stages 0 and 1"));
}

TEST(ValidatorTest, MarksTheFaultyCell) {
  Schedule schedule = Sound();
  Erase(schedule.rows[1], "1F2");
  const std::string error = ErrorOf(schedule);
  EXPECT_THAT(error, HasSubstr("worker 1, cycle 3, 1F2: this forward is missing"));
  EXPECT_THAT(error, HasSubstr("w1 | .  F0 F1 [.]"));
  EXPECT_THAT(error, HasSubstr("   <-- ERROR HERE\nw2"));
}

struct FaultCase {
  std::string name;
  std::function<void(Schedule&)> damage;
  std::string error;  // Part of it.
};

void PrintTo(const FaultCase& fault, std::ostream* out) { *out << fault.name; }

class FaultTest : public ::testing::TestWithParam<FaultCase> {};

TEST_P(FaultTest, IsRefused) {
  Schedule schedule = Sound();
  GetParam().damage(schedule);
  EXPECT_THAT(ErrorOf(schedule), AllOf(HasSubstr(GetParam().error), HasSubstr("<-- ERROR HERE")));
}

std::vector<FaultCase> WorkFaults() {
  return {
      {"MissingForward", [](Schedule& s) { Erase(s.rows[0], "0F1"); }, "0F1: this forward is missing"},
      {"MissingBackward", [](Schedule& s) { Erase(s.rows[2], "2B1"); }, "2B1: this backward is missing"},
      {"MissingRecompute", [](Schedule& s) { Erase(s.rows[1], "1R1"); }, "1B1: the recompute is missing"},
      {"MissingOptimizerStep", [](Schedule& s) { Erase(s.rows[1], "1OPT"); }, "1OPT: the optimizer step is missing"},
      {"ForwardTwice", [](Schedule& s) { Repeat(s.rows[0], "0F1"); }, "0F1: this forward was done before"},
      {"BackwardTwice", [](Schedule& s) { Repeat(s.rows[0], "0B1"); }, "0B1: this backward was done before"},
      {"RecomputeTwice", [](Schedule& s) { Repeat(s.rows[0], "0R1"); }, "0R1: this recompute was done before"},
      {"ReduceTwice", [](Schedule& s) { Repeat(s.rows[0], "0REDUCE_GRAD"); }, "the gradients were reduced before"},
      {"OptimizerTwice", [](Schedule& s) { Repeat(s.rows[0], "0OPT"); }, "the optimizer step was done before"},
      {"BackwardBeforeForward", [](Schedule& s) { MoveBefore(s.rows[2], "2B2", "2F2"); },
       "2B2: the backward comes before its forward"},
      {"RecomputeBeforeForward", [](Schedule& s) { MoveBefore(s.rows[0], "0R0", "0F0"); },
       "0R0: nothing was checkpointed"},
      {"RecomputeOfWhatWasNotCheckpointed", [](Schedule& s) { s.rows[0][0].checkpointed = false; },
       "0R0: nothing was checkpointed"},
      {"BackwardAfterOptimizer",
       [](Schedule& s) {
         MoveBefore(s.rows[0], "0OPT", "0B0");
         s.rows[0][PositionOf(s.rows[0], "0REDUCE_GRAD")].cycle = s.cycles - 1;
       },
       "0B0: it comes after the optimizer step"},
      {"BackwardAfterReduce", [](Schedule& s) { MoveBefore(s.rows[0], "0REDUCE_GRAD", "0B0"); },
       "0B0: the gradients are reduced already"},
      {"OneWorkerDoesNotReduce", [](Schedule& s) { Erase(s.rows[1], "1REDUCE_GRAD"); }, "wait for each other"},
  };
}

std::vector<FaultCase> PlaceFaults() {
  return {
      {"UnknownStage", [](Schedule& s) { s.rows[0][0].stage = 9; }, "there is no such stage"},
      {"NegativeStage", [](Schedule& s) { s.rows[0][0].stage = -1; }, "there is no such stage"},
      {"StageOfAnotherWorker", [](Schedule& s) { s.rows[0][0].stage = 1; }, "the stage belongs to another worker"},
      {"UnknownMicroBatch", [](Schedule& s) { s.rows[0][0].micro_batch = 3; }, "there is no such micro-batch"},
      {"NegativeMicroBatch", [](Schedule& s) { s.rows[0][0].micro_batch = -1; }, "there is no such micro-batch"},
      {"UnknownEdge", [](Schedule& s) { s.rows[0][1].edge = 2; }, "there is no such edge"},
      {"CycleBackwards", [](Schedule& s) { s.rows[0].back().cycle = 1; }, "clock cycles must ascend"},
      {"NegativeCycle", [](Schedule& s) { s.rows[0].front().cycle = -1; }, "clock cycles must ascend"},
      {"CycleBeyondTheEnd", [](Schedule& s) { s.rows[0].back().cycle = std::numeric_limits<int>::max(); },
       "beyond the schedule's end"},
  };
}

std::vector<FaultCase> MessageFaults() {
  return {
      {"MissingReceive", [](Schedule& s) { Erase(s.rows[1], "1RECV_F1@0"); },
       "1RECV_F1@0: this transfer of layer.0 is missing"},
      {"MissingSend", [](Schedule& s) { Erase(s.rows[0], "0SEND_F1@0"); },
       "0SEND_F1@0: this transfer of layer.0 is missing"},
      {"MissingGradientReceive", [](Schedule& s) { Erase(s.rows[0], "0RECV_B1@0"); },
       "0RECV_B1@0: this transfer of layer.0 is missing"},
      {"MissingGradientOnBothSides",
       [](Schedule& s) {
         Erase(s.rows[0], "0RECV_B1@0");
         Erase(s.rows[1], "1SEND_B1@0");
       },
       "0RECV_B1@0: this transfer of layer.0 is missing"},
      {"SendTwice", [](Schedule& s) { Repeat(s.rows[0], "0SEND_F1@0"); }, "this transfer was done before"},
      {"SendBeforeItIsMade", [](Schedule& s) { MoveBefore(s.rows[0], "0SEND_F1@0", "0F1"); },
       "0SEND_F1@0: it is sent before it is made"},
      {"ReceiveAfterItIsUsed", [](Schedule& s) { MoveBefore(s.rows[1], "1RECV_F1@0", "1SEND_F1@1"); },
       "1RECV_F1@0: it is received after it is used"},
      {"EdgeOfOtherStages", [](Schedule& s) { s.rows[0][1].edge = 1; }, "0SEND_F0@1: the edge does not do this here"},
      {"WrongDirection", [](Schedule& s) { s.rows[0][1].kind = ActionKind::kRecvForward; },
       "the edge does not do this here"},
      {"OutOfOrderChannel", [](Schedule& s) { MoveBefore(s.rows[1], "1RECV_F1@0", "1RECV_F0@0"); },
       "1RECV_F1@0: the channel brings 0SEND_F0@0"},
      {"Deadlock", [](Schedule& s) { MoveBefore(s.rows[1], "1RECV_B2@1", "1SEND_F2@1"); }, "wait for each other"},
      {"ReceivedInAnEarlierCycleThanSent",
       [](Schedule& s) {
         for (Action& action : s.rows[2]) {
           if (action.micro_batch == 0 && action.cycle == 2) action.cycle = 0;
         }
       },
       "2RECV_F0@1: 1SEND_F0@1 comes only in cycle 1"},
  };
}

const auto kNameOf = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Work, FaultTest, ::testing::ValuesIn(WorkFaults()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Place, FaultTest, ::testing::ValuesIn(PlaceFaults()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Message, FaultTest, ::testing::ValuesIn(MessageFaults()), kNameOf);

TEST(ValidatorTest, StagesOfOneWorkerMustRunInTheOrderOfTheirValues) {
  Schedule forward = SoundShared();
  MoveBefore(forward.rows[0], "1F0", "0F0");
  EXPECT_THAT(ErrorOf(forward), HasSubstr("1F0: it uses layer.0 before stage 0 makes it"));

  Schedule backward = SoundShared();
  MoveBefore(backward.rows[0], "0B1", "1B1");
  EXPECT_THAT(ErrorOf(backward), HasSubstr("0B1: it needs the gradient of layer.0 before stage 1 makes it"));
}

TEST(ValidatorTest, NothingIsSentBetweenStagesOfOneWorker) {
  Schedule schedule = SoundShared();
  Row& row = schedule.rows[0];
  row.insert(row.begin() + 1,
             Action{.stage = 0, .kind = ActionKind::kSendForward, .micro_batch = 0, .cycle = 0, .edge = 0});
  EXPECT_THAT(ErrorOf(schedule), HasSubstr("0SEND_F0@0: no such message of layer.0"));
}

TEST(ValidatorTest, AnEdgeWithoutAGradientHasNoBackwardMessages) {
  std::vector<Edge> edges = Chain(3);
  edges[0].requires_grad = false;
  EXPECT_THAT(ErrorOf(Sound(), edges), HasSubstr("no such message of layer.0"));
}

TEST(ValidatorTest, RefusesAShapeThatCannotBeIndexed) {
  const auto error = [](auto damage) {
    Schedule schedule = Sound();
    damage(schedule);
    return ErrorOf(schedule);
  };
  EXPECT_THAT(error([](Schedule& s) { s = {}; }), HasSubstr("at least one stage"));
  EXPECT_THAT(error([](Schedule& s) { s.stage_worker.pop_back(); }), HasSubstr("names 2 workers for 3 stages"));
  EXPECT_THAT(error([](Schedule& s) { s.stage_worker[2] = 7; }), HasSubstr("stage 2 is on worker 7"));
  EXPECT_THAT(error([](Schedule& s) { s.rows.pop_back(); }), HasSubstr("2 rows for 3 workers"));
  EXPECT_THAT(error([](Schedule& s) { s.rows.push_back({}); }), HasSubstr("4 rows for 3 workers"));
  EXPECT_THAT(error([](Schedule& s) { s.micro_batches = 0; }), HasSubstr("does nothing"));
  EXPECT_THAT(error([](Schedule& s) { s.cycles = 0; }), HasSubstr("does nothing"));
  EXPECT_THAT(ErrorOf(Sound(), {{"x", 0, 3}}), HasSubstr("edge 0 (x) goes from stage 0 to stage 3"));
}

TEST(ValidatorTest, AnErrorInAHugeScheduleStaysSmall) {
  Schedule schedule = Sound();
  schedule.cycles = std::numeric_limits<int>::max();
  schedule.micro_batches = std::numeric_limits<int>::max();
  EXPECT_LT(ErrorOf(schedule).size(), 2000u);
}

}  // namespace
}  // namespace gpipe::pipeline
