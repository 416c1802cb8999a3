#ifndef GPIPE_TESTS_UNIT_WORKER_TEST_PLAN_H_
#define GPIPE_TESTS_UNIT_WORKER_TEST_PLAN_H_

#include <vector>

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::worker {

// Seven layers with a skip and dropout: linear(8, 16), stash x0, tanh, linear(16, 16), dropout, pop_add x0,
// linear(16, 4).
v1::Model TestModel();

// A linear layer whose output is stashed so many times, so many layers, the pops, and a linear layer.
v1::Model ModelWithSkips(int skips, int between);

// Trains it on made-up samples, with everything on that could depend on the cut: clipping, shuffling, uneven batches
// and micro-batches, evaluation.
v1::JobSpec TrainingSpec(int64_t steps, v1::Checkpoint checkpoint);
v1::JobSpec InferenceSpec(int64_t samples, int64_t batch_size);

struct Cut {
  std::vector<int> balance;       // Layers per stage.
  std::vector<int> stage_worker;  // Worker of each stage.
  int workers() const { return stage_worker.back() + 1; }
};

// The plan for a job with one of these models, made of the pipeline library's schedules.
v1::Plan MakePlan(const v1::JobSpec& spec, const Cut& cut);

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_TEST_PLAN_H_
