#include "pipeline/transfers.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace gpipe::pipeline {
namespace {

constexpr int kLeastUnreceived = 8;

// Whether the stage that makes the edge's value does this SEND or RECV.
bool IsAtProducer(ActionKind kind) { return IsSend(kind) == (DirectionOf(kind) == Direction::kForward); }

}  // namespace

int MaxUnreceived(int from_stage, int to_stage) { return std::max(kLeastUnreceived, to_stage - from_stage + 1); }

int StageOfTransfer(const Edge& edge, ActionKind kind) { return IsAtProducer(kind) ? edge.from_stage : edge.to_stage; }

absl::Status CheckEdges(const std::vector<Edge>& edges, int stages) {
  for (size_t i = 0; i < edges.size(); ++i) {
    const Edge& edge = edges[i];
    if (edge.from_stage < 0 || edge.to_stage >= stages || edge.from_stage >= edge.to_stage) {
      return absl::InvalidArgumentError(absl::StrCat("edge ", i, " (", edge.value, ") goes from stage ",
                                                     edge.from_stage, " to stage ", edge.to_stage));
    }
  }
  return absl::OkStatus();
}

Transfers::Transfers(const std::vector<Edge>& edges, const Schedule& schedule)
    : edges_(edges),
      schedule_(schedule),
      has_backward_(schedule.stages, false),
      into_(schedule.stages),
      out_of_(schedule.stages) {
  for (size_t i = 0; i < edges.size(); ++i) {
    into_[edges[i].to_stage].push_back(static_cast<int>(i));
    out_of_[edges[i].from_stage].push_back(static_cast<int>(i));
  }
  for (const auto& row : schedule.rows) {
    for (const Action& action : row) {
      if (action.kind == ActionKind::kBackward) has_backward_[action.stage] = true;
    }
  }
}

const std::vector<int>& Transfers::Of(int stage, ActionKind kind) const {
  return IsAtProducer(kind) ? OutOf(stage) : Into(stage);
}

bool Transfers::IsLocal(const Edge& edge) const {
  return schedule_.stage_worker[edge.from_stage] == schedule_.stage_worker[edge.to_stage];
}

bool Transfers::HasGradient(const Edge& edge) const {
  return edge.requires_grad && has_backward_[edge.from_stage] && has_backward_[edge.to_stage];
}

bool Transfers::Crosses(const Edge& edge, ActionKind kind) const {
  return !IsLocal(edge) && (DirectionOf(kind) == Direction::kForward || HasGradient(edge));
}

}  // namespace gpipe::pipeline
