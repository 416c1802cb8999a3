#include "pipeline/grid.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gpipe::pipeline {
namespace {

using Cells = std::vector<std::string>;

constexpr int kNeighbours = 8;  // Cells on each side of a marked one.

// The part of a grid that is drawn.
struct Window {
  int first_worker = 0, end_worker = 0;
  int first_cycle = 0, end_cycle = 0;
};

// `F3`, `OPT`; led by the stage when a worker has several.
std::string CellToken(const Action& action, bool name_stage) {
  const std::string_view kind = KindName(action.kind);
  std::string token = absl::StrCat(absl::string_view(kind.data(), kind.size()));
  if (action.micro_batch >= 0) absl::StrAppend(&token, action.micro_batch);
  return name_stage ? absl::StrCat(action.stage, token) : token;
}

bool IsSameWork(const Action& recompute, const Action& backward) {
  return recompute.kind == ActionKind::kRecompute && backward.kind == ActionKind::kBackward &&
         recompute.stage == backward.stage && recompute.micro_batch == backward.micro_batch &&
         recompute.cycle == backward.cycle;
}

bool HasSeveralStages(const std::vector<Action>& row) {
  return std::any_of(row.begin(), row.end(), [&](const Action& action) { return action.stage != row.front().stage; });
}

// The compute actions of each clock cycle of one worker; a recompute and its backward are drawn together, as `RB3`.
Cells RowCells(const std::vector<Action>& row, const Window& window) {
  const bool name_stage = HasSeveralStages(row);
  Cells cells(window.end_cycle - window.first_cycle);
  Action previous;
  for (const Action& action : row) {
    if (!IsCompute(action.kind) || action.cycle < window.first_cycle || action.cycle >= window.end_cycle) continue;
    std::string& cell = cells[action.cycle - window.first_cycle];
    if (IsSameWork(previous, action)) {
      cell.insert(cell.rfind('R') + 1, "B");
    } else {
      absl::StrAppend(&cell, cell.empty() ? "" : "+", CellToken(action, name_stage));
    }
    previous = action;
  }
  for (std::string& cell : cells) {
    if (cell.empty()) cell = ".";
  }
  return cells;
}

std::string Padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

std::string RenderRow(const std::string& label, size_t label_width, const Cells& cells,
                      const std::vector<size_t>& widths) {
  std::string line = Padded(label, label_width) + " |";
  for (size_t i = 0; i < cells.size(); ++i) absl::StrAppend(&line, " ", Padded(cells[i], widths[i]));
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

Cells HeaderCells(const Window& window) {
  Cells header;
  for (int cycle = window.first_cycle; cycle < window.end_cycle; ++cycle) header.push_back(absl::StrCat(cycle));
  return header;
}

// Lines up cells[0], the header, and the workers' cells below it. One line each.
std::vector<std::string> RenderLines(const std::vector<Cells>& cells, int first_worker) {
  std::vector<size_t> widths(cells[0].size(), 0);
  for (const Cells& row : cells) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const size_t label_width = absl::StrCat("w", first_worker + cells.size() - 2).size();
  std::vector<std::string> lines = {RenderRow("", label_width, cells[0], widths)};
  for (size_t i = 1; i < cells.size(); ++i) {
    lines.push_back(RenderRow(absl::StrCat("w", first_worker + i - 1), label_width, cells[i], widths));
  }
  return lines;
}

std::vector<Cells> CellsOf(const Schedule& schedule, const Window& window) {
  std::vector<Cells> cells = {HeaderCells(window)};
  for (int worker = window.first_worker; worker < window.end_worker; ++worker) {
    cells.push_back(RowCells(schedule.rows[worker], window));
  }
  return cells;
}

std::string Joined(const std::vector<std::string>& lines) { return absl::StrJoin(lines, "\n") + "\n"; }

}  // namespace

std::string RenderGrid(const Schedule& schedule) {
  const Window all{.end_worker = static_cast<int>(schedule.rows.size()), .end_cycle = schedule.cycles};
  return Joined(RenderLines(CellsOf(schedule, all), 0));
}

std::string RenderGridAround(const Schedule& schedule, int worker, int cycle) {
  cycle = std::clamp(cycle, 0, schedule.cycles - 1);
  const int workers = static_cast<int>(schedule.rows.size());
  const Window window{.first_worker = std::max(0, worker - kNeighbours),
                      .end_worker = std::min(workers, worker + kNeighbours + 1),
                      .first_cycle = std::max(0, cycle - kNeighbours),
                      .end_cycle = cycle + std::min(schedule.cycles - cycle, kNeighbours + 1)};
  std::vector<Cells> cells = CellsOf(schedule, window);
  const int line = worker - window.first_worker + 1;
  std::string& faulty = cells[line][cycle - window.first_cycle];
  faulty = absl::StrCat("[", faulty, "]");
  std::vector<std::string> lines = RenderLines(cells, window.first_worker);
  lines[line] += "   <-- ERROR HERE";
  return Joined(lines);
}

std::string ToText(const Schedule& schedule) {
  std::string text = absl::StrCat("gpipe-schedule 1 stages=", schedule.stages,
                                  " micro_batches=", schedule.micro_batches, " cycles=", schedule.cycles, "\n");
  for (const auto& row : schedule.rows) {
    absl::StrAppend(
        &text,
        absl::StrJoin(row, ",", [](std::string* out, const Action& action) { absl::StrAppend(out, ToString(action)); }),
        "\n");
  }
  return text;
}

}  // namespace gpipe::pipeline
