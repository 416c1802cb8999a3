#include "pipeline/transfers.h"

#include "absl/strings/str_cat.h"

namespace gpipe::pipeline {

bool IsForwardTransfer(ActionKind kind) { return kind == ActionKind::kSendForward || kind == ActionKind::kRecvForward; }

int StageOfTransfer(const Edge& edge, ActionKind kind) {
  const bool at_producer = kind == ActionKind::kSendForward || kind == ActionKind::kRecvBackward;
  return at_producer ? edge.from_stage : edge.to_stage;
}

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
    : edges_(edges), schedule_(schedule), has_backward_(schedule.stages, false) {
  for (const auto& row : schedule.rows) {
    for (const Action& action : row) {
      if (action.kind == ActionKind::kBackward) has_backward_[action.stage] = true;
    }
  }
}

bool Transfers::IsLocal(const Edge& edge) const {
  return schedule_.stage_worker[edge.from_stage] == schedule_.stage_worker[edge.to_stage];
}

bool Transfers::HasGradient(const Edge& edge) const {
  return edge.requires_grad && has_backward_[edge.from_stage] && has_backward_[edge.to_stage];
}

bool Transfers::Crosses(const Edge& edge, ActionKind kind) const {
  return !IsLocal(edge) && (IsForwardTransfer(kind) || HasGradient(edge));
}

}  // namespace gpipe::pipeline
