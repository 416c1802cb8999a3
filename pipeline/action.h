#ifndef GPIPE_PIPELINE_ACTION_H_
#define GPIPE_PIPELINE_ACTION_H_

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace gpipe::pipeline {

enum class ActionKind {
  kForward,
  kBackward,     // Full: for the input and for the weights.
  kRecompute,    // Forward again before the backward.
  kSendForward,  // Named by the sending stage.
  kRecvForward,  // Named by the receiving stage.
  kSendBackward,
  kRecvBackward,
  kReduceGrad,  // Gradients are complete: clip over all stages.
  kOptimizer,
};

// The pass that an action belongs to: values go forward, gradients back. The update at the end counts as backward.
enum class Direction { kForward, kBackward };

enum class ActionRole {
  kCompute,  // Work of one stage.
  kSend,
  kReceive,
  kMeeting,  // All workers come to it.
};

// All that there is to know of a kind of action, for whoever does not do it himself.
struct KindTraits {
  ActionKind kind;
  std::string_view name;  // In the text form.
  ActionRole role;
  Direction direction;
  bool has_micro_batch;
  int proto;  // Its number in gpipe.v1.ActionKind.
};

// The one list of the kinds, in the order of the enumeration.
inline constexpr std::array<KindTraits, 9> kKindTraits = {{
    {ActionKind::kForward, "F", ActionRole::kCompute, Direction::kForward, true, 1},
    {ActionKind::kBackward, "B", ActionRole::kCompute, Direction::kBackward, true, 2},
    {ActionKind::kRecompute, "R", ActionRole::kCompute, Direction::kBackward, true, 3},
    {ActionKind::kSendForward, "SEND_F", ActionRole::kSend, Direction::kForward, true, 4},
    {ActionKind::kRecvForward, "RECV_F", ActionRole::kReceive, Direction::kForward, true, 5},
    {ActionKind::kSendBackward, "SEND_B", ActionRole::kSend, Direction::kBackward, true, 6},
    {ActionKind::kRecvBackward, "RECV_B", ActionRole::kReceive, Direction::kBackward, true, 7},
    {ActionKind::kReduceGrad, "REDUCE_GRAD", ActionRole::kMeeting, Direction::kBackward, false, 8},
    {ActionKind::kOptimizer, "OPT", ActionRole::kCompute, Direction::kBackward, false, 9},
}};

constexpr const KindTraits& TraitsOf(ActionKind kind) { return kKindTraits[static_cast<std::size_t>(kind)]; }

constexpr bool IsCompute(ActionKind kind) { return TraitsOf(kind).role == ActionRole::kCompute; }
constexpr bool IsSend(ActionKind kind) { return TraitsOf(kind).role == ActionRole::kSend; }
constexpr bool IsReceive(ActionKind kind) { return TraitsOf(kind).role == ActionRole::kReceive; }
constexpr bool IsTransfer(ActionKind kind) { return IsSend(kind) || IsReceive(kind); }
constexpr bool HasMicroBatch(ActionKind kind) { return TraitsOf(kind).has_micro_batch; }
constexpr Direction DirectionOf(ActionKind kind) { return TraitsOf(kind).direction; }

// `F`, `SEND_B`, ...
constexpr std::string_view KindName(ActionKind kind) { return TraitsOf(kind).name; }

// One thing one worker does, as data. The text form is `[stage][kind][micro-batch]` as in torch.distributed.pipelining
// (`0F1`, `2SEND_B2`, `1OPT`); a stage's communication over a skip edge adds the edge: `2RECV_F1@3`.
struct Action {
  int stage = 0;
  ActionKind kind = ActionKind::kForward;
  int micro_batch = -1;       // -1 for a kind that has none.
  int cycle = 0;              // Clock cycle, from 0.
  int edge = -1;              // SEND and RECV: index into the plan's edges.
  bool checkpointed = false;  // F only: keep the inputs only, and recompute.

  bool operator==(const Action&) const = default;
};

std::string ToString(const Action& action);

// Inverse of ToString up to `cycle` and `checkpointed`, which the text does not carry. INVALID_ARGUMENT names the
// token.
absl::StatusOr<Action> ParseAction(std::string_view token);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_ACTION_H_
