#ifndef GPIPE_PIPELINE_TRANSFERS_H_
#define GPIPE_PIPELINE_TRANSFERS_H_

#include <vector>

#include "absl/status/status.h"
#include "pipeline/schedule.h"

namespace gpipe::pipeline {

// How many messages of a channel, which is one direction between two stages, may be sent and not yet received; the next
// SEND of the channel waits for the oldest. What the engine keeps to, the validator and the simulator know: of each
// edge by itself, as the values of one micro-batch go together.
//
// Of each channel by itself: a limit over several would make one message wait for another that is needed only later.
// GPipe makes a value `to_stage - from_stage` clock cycles before it is used and another in each cycle, so that as many
// are under way when all workers go in step, whatever else a worker does between the two; with one more, a SEND waits
// only for a RECV of an earlier cycle, and lock-step can go on. Below eight a worker would have to stop for every
// micro-batch in which another is slower; above, tensors that nobody needs yet would fill the memory where rounds
// stream.
int MaxUnreceived(int from_stage, int to_stage);

// The stage that does this SEND or RECV for the edge: a gradient goes from the consumer back to the producer.
int StageOfTransfer(const Edge& edge, ActionKind kind);

// INVALID_ARGUMENT unless every edge goes from a stage to a later one of the `stages`.
absl::Status CheckEdges(const std::vector<Edge>& edges, int stages);

// Which values become messages between workers: the one rule that the lowering follows and the validator checks.
class Transfers {
 public:
  // Keeps references to both; looks once at which stages have a backward, and which edges each of them has.
  // REQUIRES: CheckEdges accepts the edges, and every action of the schedule names one of its stages.
  Transfers(const std::vector<Edge>& edges, const Schedule& schedule);

  bool HasBackward(int stage) const { return has_backward_[stage]; }

  // Whether both ends of the edge are on one worker, so that nothing is sent.
  bool IsLocal(const Edge& edge) const;

  // Whether a gradient comes back over the edge.
  bool HasGradient(const Edge& edge) const;

  // Whether the edge means one message per micro-batch for this kind of SEND or RECV.
  bool Crosses(const Edge& edge, ActionKind kind) const;

  const std::vector<Edge>& edges() const { return edges_; }

  // Indices of the edges that end, or begin, at a stage; ascending.
  const std::vector<int>& Into(int stage) const { return into_[stage]; }
  const std::vector<int>& OutOf(int stage) const { return out_of_[stage]; }
  // Those for which the stage does this kind of SEND or RECV.
  const std::vector<int>& Of(int stage, ActionKind kind) const;

 private:
  const std::vector<Edge>& edges_;
  const Schedule& schedule_;
  std::vector<bool> has_backward_;
  std::vector<std::vector<int>> into_, out_of_;  // By stage.
};

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_TRANSFERS_H_
