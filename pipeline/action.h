#ifndef GPIPE_PIPELINE_ACTION_H_
#define GPIPE_PIPELINE_ACTION_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace gpipe::pipeline {

enum class ActionKind {
  kForward,       // F
  kBackward,      // B, full: for the input and for the weights
  kRecompute,     // R, forward again before the backward
  kSendForward,   // SEND_F, named by the sending stage
  kRecvForward,   // RECV_F, named by the receiving stage
  kSendBackward,  // SEND_B
  kRecvBackward,  // RECV_B
  kReduceGrad,    // REDUCE_GRAD, gradients complete: clip over all stages
  kOptimizer,     // OPT
};

// One thing one worker does, as data. The text form is `[stage][kind][micro-batch]` as in torch.distributed.pipelining
// (`0F1`, `2SEND_B2`, `1OPT`); a stage's communication over a skip edge adds the edge: `2RECV_F1@3`.
struct Action {
  int stage = 0;
  ActionKind kind = ActionKind::kForward;
  int micro_batch = -1;       // -1 for REDUCE_GRAD and OPT.
  int cycle = 0;              // Clock cycle, from 0.
  int edge = -1;              // SEND and RECV: index into the plan's edges.
  bool checkpointed = false;  // F only: keep the inputs only, and recompute.

  bool operator==(const Action&) const = default;
};

bool IsCompute(ActionKind kind);
bool IsSend(ActionKind kind);
bool IsReceive(ActionKind kind);

// `F`, `SEND_B`, ...
std::string_view KindName(ActionKind kind);

std::string ToString(const Action& action);

// Inverse of ToString up to `cycle` and `checkpointed`, which the text does not carry. INVALID_ARGUMENT names the
// token.
absl::StatusOr<Action> ParseAction(std::string_view token);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_ACTION_H_
