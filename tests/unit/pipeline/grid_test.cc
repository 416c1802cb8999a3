#include "pipeline/grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/unit/paths.h"
#include "tests/unit/pipeline/schedules.h"

namespace gpipe::pipeline {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(GridTest, DrawsOneLinePerWorkerAndOneColumnPerCycle) {
  EXPECT_EQ(RenderGrid(Lowered(Training(2, 2), Chain(2))),
            "   | 0  1  2  3  4   5   6\n"
            "w0 | F0 F1 .  .  B1  RB0 OPT\n"
            "w1 | .  F0 F1 B1 RB0 .   OPT\n");
}

TEST(GridTest, NamesTheStageWhenAWorkerHasSeveral) {
  ScheduleOptions options = Training(3, 2, CheckpointMode::kAlways);
  options.stage_worker = {0, 0, 1};
  EXPECT_EQ(RenderGrid(GPipeSchedule(options).value()),
            "   | 0   1       2   3  4   5    6         7    8\n"
            "w0 | 0F0 0F1+1F0 1F1 .  .   1RB1 1RB0+0RB1 0RB0 0OPT\n"
            "w1 | .   .       F0  F1 RB1 RB0  .         .    OPT\n");
}

TEST(GridTest, TheDrawingInTheDocumentationIsThisOne) {
  std::ifstream file(SourceFolder() / "docs/schedules.md");
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("```\n" + RenderGrid(Lowered(Training(4, 4), Chain(4))) + "```"));
}

TEST(GridTest, LinesUpWhenThereAreMoreThanTenWorkers) {
  ScheduleOptions options = Training(11, 1);
  options.training = false;
  const std::string grid = RenderGrid(GPipeSchedule(options).value());
  EXPECT_THAT(grid, HasSubstr("\nw9  | "));
  EXPECT_THAT(grid, HasSubstr("\nw10 | "));
}

TEST(GridTest, ARecomputeInAnotherCycleThanItsBackwardIsDrawnByItself) {
  Schedule schedule = GPipeSchedule(Training(1, 1, CheckpointMode::kAlways)).value();
  schedule.rows[0][PositionOf(schedule.rows[0], "0R0")].cycle = 0;
  EXPECT_THAT(RenderGrid(schedule), HasSubstr("w0 | F0+R0 B0 OPT"));
}

TEST(GridTest, MarksTheFaultyCell) {
  EXPECT_EQ(RenderGridAround(GPipeSchedule(Training(2, 1)).value(), 1, 1),
            "   | 0  1    2  3  4\n"
            "w0 | F0 .    .  B0 OPT\n"
            "w1 | .  [F0] B0 .  OPT   <-- ERROR HERE\n");
}

TEST(GridTest, ShowsOnlyTheNeighbourhoodOfAFaultInALargeSchedule) {
  const std::string grid = RenderGridAround(GPipeSchedule(Training(64, 1000)).value(), 40, 500);
  EXPECT_LT(grid.size(), 4000u);
  EXPECT_THAT(grid, HasSubstr("[F460]"));
  EXPECT_THAT(grid, HasSubstr("\nw48 |"));
  EXPECT_THAT(grid, Not(HasSubstr("\nw49 |")));
}

TEST(GridTest, ACycleOutsideTheScheduleCountsAsTheNearest) {
  const Schedule schedule = GPipeSchedule(Training(1, 1)).value();
  EXPECT_THAT(RenderGridAround(schedule, 0, 1 << 30), HasSubstr("[OPT]"));
  EXPECT_THAT(RenderGridAround(schedule, 0, -5), HasSubstr("[F0]"));
}

TEST(ToTextTest, BeginsWithItsVersion) {
  EXPECT_EQ(ToText(Lowered(Training(2, 1), Chain(2))),
            "gpipe-schedule 1 stages=2 micro_batches=1 cycles=5\n"
            "0F0,0SEND_F0@0,0RECV_B0@0,0B0,0OPT\n"
            "1RECV_F0@0,1F0,1B0,1SEND_B0@0,1OPT\n");
}

}  // namespace
}  // namespace gpipe::pipeline
