#ifndef GPIPE_ORCHESTRATOR_PLANNING_PLANNER_H_
#define GPIPE_ORCHESTRATOR_PLANNING_PLANNER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/artifacts/input_check.h"

namespace gpipe::orchestrator {

// From a spec, its data's shapes and its layers to everything that is decided before a job starts. Pure functions; any
// thread. `spec` is valid and has its defaults everywhere here; `layers` are one per layer of the spec.

struct PlanRequest {
  const v1::JobSpec& spec;
  const InputFacts& facts;
  const std::vector<v1::LayerInfo>& layers;
  std::vector<int64_t> balance = {};  // Layers per stage.
  int workers = 1;                    // At most as many as stages.
  int64_t first_step = 0;             // Steps done by the checkpoint to start from.
  // The layers as measured on each worker, or on one of its kind; empty when they were not measured.
  std::vector<const std::vector<v1::LayerInfo>*> profiles = {};
  // Between each worker and the next one; empty when they were not measured.
  std::vector<v1::LinkSpeed> links = {};
  // Bytes that stages may take on each worker, 0 is any number; empty: all may.
  std::vector<int64_t> memory_bytes = {};
  // Whether `pipeline.checkpoint: auto` may become never: where memory is a device's own.
  bool may_keep_all = false;
};

// The layers as that worker runs them, where that was measured.
const std::vector<v1::LayerInfo>& ProfileOf(const PlanRequest& request, int worker);

// The worker of a stage: neighbouring stages share one, as evenly as can be.
int WorkerOf(int stage, int stages, int workers);

// Whether the job can be laid out at all, before its layers are known. INVALID_ARGUMENT, by field path: too many steps,
// too many micro-batches, or epochs that are over before the learning rate is warm.
absl::Status CheckSize(const v1::JobSpec& spec, const InputFacts& facts);

// Each layer of the plan is described as on the worker that gets it.
// REQUIRES: CheckSize and FixedCut are OK.
absl::StatusOr<v1::Plan> MakePlan(const PlanRequest& request);

// The mini-batches of the job, from a checkpoint of so many steps on.
v1::Timeline TimelineOf(const v1::JobSpec& spec, const InputFacts& facts, int64_t first_step = 0);

// At most so many stages make sense, as far as is known before the layers are.
int64_t MostStages(const v1::JobSpec& spec);

// A job with fewer workers waits.
int64_t LeastWorkers(const v1::JobSpec& spec);

// Workers for the spec, when `idle` suitable ones are free; 0 when they are too few.
int WorkersFor(const v1::JobSpec& spec, int idle);

// Optimizer steps of the whole job; 0 in inference.
int64_t TotalSteps(const v1::JobSpec& spec, const InputFacts& facts);

// Micro-batches of a full mini-batch, and the samples of the largest one.
int64_t MicroBatches(const v1::JobSpec& spec, const InputFacts& facts);
int64_t LargestMicroBatch(const v1::JobSpec& spec, const InputFacts& facts);

// The question to a worker about this spec's layers; with `measure`, their costs too.
v1::Inspect MakeInspect(const v1::JobSpec& spec, const InputFacts& facts, const FileMap& files, bool measure);

// The size of the output's dimension that counts the classes (cross_entropy's class_dim); 0 when it has no such
// dimension.
int64_t ClassesOf(const v1::JobSpec& spec, const std::vector<v1::LayerInfo>& layers);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_PLANNER_H_
