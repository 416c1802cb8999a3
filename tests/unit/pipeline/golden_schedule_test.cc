// Compares schedules with tests/golden/schedules/*.txt, byte for byte. GPIPE_UPDATE_GOLDEN=1 writes the files anew;
// read the difference before you commit it.

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tests/unit/paths.h"
#include "tests/unit/pipeline/schedules.h"

namespace gpipe::pipeline {
namespace {

struct Case {
  std::string name;
  ScheduleOptions options;
  std::vector<Edge> edges;
};

std::vector<Edge> ChainWithSkip(int stages, int from, int to) {
  std::vector<Edge> edges = Chain(stages);
  edges.push_back({.value = "skip.s", .from_stage = from, .to_stage = to});
  return edges;
}

ScheduleOptions OnWorkers(ScheduleOptions options, std::vector<int> stage_worker) {
  options.stage_worker = std::move(stage_worker);
  return options;
}

ScheduleOptions Clipped(ScheduleOptions options) {
  options.reduce_gradients = true;
  return options;
}

ScheduleOptions ForwardOnly(ScheduleOptions options) {
  options.training = false;
  return options;
}

ScheduleOptions FrozenFirst(ScheduleOptions options) {
  options.needs_backward.assign(options.stages, true);
  options.needs_backward[0] = false;
  return options;
}

std::vector<Case> Cases() {
  return {
      {"1x1_except_last", Training(1, 1), {}},
      {"2x4_except_last", Training(2, 4), Chain(2)},
      {"2x4_never", Training(2, 4, CheckpointMode::kNever), Chain(2)},
      {"4x4_always_clipped", Clipped(Training(4, 4, CheckpointMode::kAlways)), Chain(4)},
      {"4x2_fewer_micro_batches_than_stages", Training(4, 2), Chain(4)},
      {"3x3_skip_0_to_2", Training(3, 3), ChainWithSkip(3, 0, 2)},
      {"4x3_on_2_workers_skip_0_to_2", OnWorkers(Training(4, 3), {0, 0, 1, 1}), ChainWithSkip(4, 0, 2)},
      {"3x4_forward_only", ForwardOnly(Training(3, 4)), Chain(3)},
      {"3x2_first_stage_frozen", FrozenFirst(Training(3, 2)), Chain(3)},
  };
}

class GoldenScheduleTest : public ::testing::TestWithParam<Case> {};

TEST_P(GoldenScheduleTest, MatchesItsFile) {
  const std::string path = SourceFolder() / "tests/golden/schedules" / (GetParam().name + ".txt");
  const Schedule schedule = Lowered(GetParam().options, GetParam().edges);
  ASSERT_TRUE(ValidateSchedule(schedule, GetParam().edges).ok());
  if (std::getenv("GPIPE_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path, std::ios::binary) << ToText(schedule);
  }
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file.is_open()) << path << " is missing; GPIPE_UPDATE_GOLDEN=1 writes it";
  std::ostringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(ToText(schedule), golden.str()) << path;
}

INSTANTIATE_TEST_SUITE_P(Schedules, GoldenScheduleTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return "Golden_" + info.param.name; });

}  // namespace
}  // namespace gpipe::pipeline
