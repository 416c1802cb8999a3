#ifndef GPIPE_PIPELINE_SCHEDULE_H_
#define GPIPE_PIPELINE_SCHEDULE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/action.h"

namespace gpipe::pipeline {

// A value that one stage makes and a later one uses (gpipe.v1.Edge).
struct Edge {
  std::string value;
  int from_stage = 0;
  int to_stage = 0;
  bool requires_grad = true;
};

// Which micro-batches keep only their inputs and are computed again; torchgpipe's three modes.
enum class CheckpointMode { kAlways, kExceptLast, kNever };

// What every worker does with one mini-batch: one row of actions per worker, in execution order, cycles ascending.
struct Schedule {
  int stages = 0;
  int micro_batches = 0;
  int cycles = 0;
  std::vector<int> stage_worker;          // Worker of each stage, ascending.
  std::vector<std::vector<Action>> rows;  // By worker.
};

// The builders there are, by their numbers in gpipe.v1.ScheduleKind.
enum class ScheduleKind { kGPipe = 1 };

struct ScheduleOptions {
  int stages = 1;
  int micro_batches = 1;
  std::vector<int> stage_worker = {};  // One per stage, ascending from 0 without gaps.
  bool training = true;                // Otherwise forward only.
  CheckpointMode checkpoint = CheckpointMode::kExceptLast;
  std::vector<bool> needs_backward = {};  // By stage; empty means all. A stage without is given no R and no B.
  bool reduce_gradients = false;          // Adds REDUCE_GRAD.
};

// The schedule of a kind: the one place where a builder is chosen. Errors as the builder's; INVALID_ARGUMENT also where
// there is no builder of that kind.
absl::StatusOr<Schedule> MakeSchedule(ScheduleKind kind, const ScheduleOptions& options);

// GPipe (Huang et al. 2019, arXiv 1811.06965): forward of micro-batch i on stage j in clock cycle i+j; after the
// M+K-1 forward cycles the backward in reverse, again M+K-1 cycles, then one cycle for REDUCE_GRAD and OPT.
// Compute actions only; AddCommunication adds the rest. kExceptLast counts the real micro-batches.
// INVALID_ARGUMENT when a count is not positive or stage_worker is not as described.
absl::StatusOr<Schedule> GPipeSchedule(const ScheduleOptions& options);

// Inserts SEND right after the action that makes a value and RECV right before the one that uses it, for each edge
// whose stages are on different workers. R comes before RECV_B, so that recomputing does not wait for the gradient.
// The edges between two stages are in each direction one first-in-first-out channel: forward in ascending, backward in
// descending micro-batches on both ends, so that messages of one never wait for those of another.
absl::Status AddCommunication(const std::vector<Edge>& edges, Schedule& schedule);

// Checks that a lowered schedule is complete and executable: every F once, B after its F, R between, each RECV before
// its consumer, each SEND after its producer, those of a micro-batch between the same stages together, sends and
// receives pairing in order, all cycles ascending, and that running the rows against each other comes to an end, with
// at most MaxUnreceived (transfers.h) messages of a channel sent ahead. The error shows the grid with the faulty cell
// marked.
absl::Status ValidateSchedule(const Schedule& schedule, const std::vector<Edge>& edges);

// One line per worker and one column per clock cycle; a cell holds the compute actions of that cycle, `.` is a bubble.
std::string RenderGrid(const Schedule& schedule);

// The file form: a version line, then one comma-separated row of tokens per worker. Used for golden files.
std::string ToText(const Schedule& schedule);

// Samples per micro-batch: as even as possible, larger ones first, min(batch, chunks) of them.
// REQUIRES: batch >= 1, chunks >= 1.
std::vector<int64_t> MicroBatchSizes(int64_t batch, int64_t chunks);

// GPipe's bubble (K-1)/(M+K-1), with K workers.
double BubbleShare(int workers, int micro_batches);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_SCHEDULE_H_
