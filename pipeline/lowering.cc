#include "pipeline/schedule.h"
#include "pipeline/transfers.h"

namespace gpipe::pipeline {
namespace {

// Appends the messages of one kind that belong to a compute action, by ascending edge.
void AppendTransfers(const Transfers& transfers, const Action& compute, ActionKind kind, std::vector<Action>& row) {
  for (const int index : transfers.Of(compute.stage, kind)) {
    if (!transfers.Crosses(transfers.edges()[index], kind)) continue;
    row.push_back({.stage = compute.stage,
                   .kind = kind,
                   .micro_batch = compute.micro_batch,
                   .cycle = compute.cycle,
                   .edge = index});
  }
}

std::vector<Action> LowerRow(const Transfers& transfers, const std::vector<Action>& row) {
  std::vector<Action> lowered;
  for (const Action& action : row) {
    const bool forward = action.kind == ActionKind::kForward, backward = action.kind == ActionKind::kBackward;
    if (forward) AppendTransfers(transfers, action, ActionKind::kRecvForward, lowered);
    if (backward) AppendTransfers(transfers, action, ActionKind::kRecvBackward, lowered);
    lowered.push_back(action);
    if (forward) AppendTransfers(transfers, action, ActionKind::kSendForward, lowered);
    if (backward) AppendTransfers(transfers, action, ActionKind::kSendBackward, lowered);
  }
  return lowered;
}

}  // namespace

absl::Status AddCommunication(const std::vector<Edge>& edges, Schedule& schedule) {
  if (absl::Status status = CheckEdges(edges, schedule.stages); !status.ok()) return status;
  const Transfers transfers(edges, schedule);
  for (auto& row : schedule.rows) row = LowerRow(transfers, row);
  return absl::OkStatus();
}

}  // namespace gpipe::pipeline
