#ifndef GPIPE_TESTS_UNIT_PIPELINE_SCHEDULES_H_
#define GPIPE_TESTS_UNIT_PIPELINE_SCHEDULES_H_

#include <algorithm>
#include <string>
#include <vector>

#include "pipeline/schedule.h"

namespace gpipe::pipeline {

// Stage j on worker j.
inline std::vector<int> OneEach(int stages) {
  std::vector<int> stage_worker(stages);
  for (int stage = 0; stage < stages; ++stage) stage_worker[stage] = stage;
  return stage_worker;
}

// The stages shared out as evenly as possible.
inline std::vector<int> SharedOut(int stages, int workers) {
  std::vector<int> stage_worker(stages);
  for (int stage = 0; stage < stages; ++stage) stage_worker[stage] = stage * workers / stages;
  return stage_worker;
}

// Each stage's output goes to the next.
inline std::vector<Edge> Chain(int stages) {
  std::vector<Edge> edges;
  for (int stage = 0; stage + 1 < stages; ++stage) {
    edges.push_back({.value = "layer." + std::to_string(stage), .from_stage = stage, .to_stage = stage + 1});
  }
  return edges;
}

inline ScheduleOptions Training(int stages, int micro_batches, CheckpointMode mode = CheckpointMode::kExceptLast) {
  return {.stages = stages,
          .micro_batches = micro_batches,
          .stage_worker = OneEach(stages),
          .checkpoint = mode,
          .needs_backward = {}};
}

inline Schedule Lowered(const ScheduleOptions& options, const std::vector<Edge>& edges) {
  Schedule schedule = GPipeSchedule(options).value();
  const absl::Status status = AddCommunication(edges, schedule);
  if (!status.ok()) schedule.rows.clear();
  return schedule;
}

// A row's tokens, separated by spaces.
inline std::string RowText(const std::vector<Action>& row) {
  std::string text;
  for (const Action& action : row) text += (text.empty() ? "" : " ") + ToString(action);
  return text;
}

// Where the row has this token. REQUIRES: it has.
inline size_t PositionOf(const std::vector<Action>& row, const std::string& token) {
  return std::find_if(row.begin(), row.end(), [&](const Action& action) { return ToString(action) == token; }) -
         row.begin();
}

}  // namespace gpipe::pipeline

#endif  // GPIPE_TESTS_UNIT_PIPELINE_SCHEDULES_H_
