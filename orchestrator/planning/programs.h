#ifndef GPIPE_ORCHESTRATOR_PLANNING_PROGRAMS_H_
#define GPIPE_ORCHESTRATOR_PLANNING_PROGRAMS_H_

#include <cstdint>
#include <functional>
#include <set>

#include "absl/status/status.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::orchestrator {

// Forward passes of one mini-batch over all stages; keeps an assignment's message at some megabytes.
inline constexpr int64_t kMaxCells = 65536;

// Sizes of mini-batches, the largest first.
using BatchSizes = std::set<int64_t, std::greater<>>;

// Those of the training mini-batches that a job meets, which may end before its first epoch does.
BatchSizes TrainingSizes(const v1::Timeline& timeline);

// Fills in one program per kind and size of mini-batch that the plan's timeline meets.
// REQUIRES: stages, edges, stage_worker and timeline are set.
// INVALID_ARGUMENT: no builder makes the schedule that the spec asks for, or it makes one that is not executable.
absl::Status AddPrograms(const v1::JobSpec& spec, v1::Plan& plan);

// The programs that a client of the job may ask for with mini-batches of some size, and the update, which has no size.
// The same requirements and errors.
absl::Status AddClientPrograms(const v1::JobSpec& spec, int64_t batch_size, v1::Plan& plan);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_PROGRAMS_H_
