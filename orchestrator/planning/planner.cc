#include "orchestrator/planning/planner.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/plan/shape.h"
#include "common/spec/client_data.h"
#include "common/status_macros.h"
#include "orchestrator/planning/edges.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/programs.h"
#include "pipeline/timeline.h"

namespace gpipe::orchestrator {
namespace {

// So that the number of rounds, evaluations after each step included, stays within its type.
constexpr int64_t kMaxSteps = 1'000'000'000;
constexpr int64_t kMaxSamples = 1'000'000'000'000;
// Of a model whose parts are not known yet.
constexpr int64_t kMostExportedStages = 64;

int64_t BatchSize(const v1::JobSpec& spec) {
  return spec.has_train() ? spec.train().batch_size() : spec.infer().batch_size();
}

// A micro-batch of the first mini-batch, where the job has not said what its loss is a mean of. With one micro-batch
// there is nothing to put together.
int64_t LossCheckSamples(const v1::JobSpec& spec, const v1::Timeline& timeline) {
  const v1::Loss& loss = spec.train().loss();
  if (!loss.has_model_output() || loss.model_output().mean_of() != v1::LOSS_MEAN_UNSPECIFIED) return 0;
  const int64_t samples = std::min(timeline.samples(), timeline.batch_size());
  const int64_t chunks = std::min(samples, spec.pipeline().chunks());
  return chunks < 2 ? 0 : samples / chunks;
}

// The validator has, where the spec gives the number of steps itself.
void CheckWarmup(const v1::Train& train, int64_t steps, FieldErrors& errors) {
  const v1::LrSchedule& schedule = train.lr_schedule();
  if (train.epochs() == 0 || !(schedule.has_warmup_cosine() || schedule.has_warmup_linear())) return;
  const bool cosine = schedule.has_warmup_cosine();
  const v1::WarmupLr& warmup = cosine ? schedule.warmup_cosine() : schedule.warmup_linear();
  if (warmup.warmup_steps() < steps) return;
  errors.Add(absl::StrCat("train.lr_schedule.", cosine ? "warmup_cosine" : "warmup_linear", ".warmup_steps"),
             absl::StrCat("must be fewer than the ", steps, " steps that the ", train.epochs(), " epochs have"));
}

void AddStages(const PlanRequest& request, v1::Plan& plan) {
  const int stages = static_cast<int>(request.balance.size());
  int first_layer = 0;
  for (int stage = 0; stage < stages; ++stage) {
    const int worker = WorkerOf(stage, stages, request.workers);
    v1::Stage& added = *plan.add_stages();
    added.set_first_layer(first_layer);
    added.set_layer_count(static_cast<int>(request.balance[stage]));
    plan.add_stage_worker(worker);
    const auto layers = ProfileOf(request, worker).begin() + first_layer;
    plan.mutable_layers()->Add(layers, layers + added.layer_count());
    first_layer += added.layer_count();
  }
}

void AddShapes(const PlanRequest& request, v1::Plan& plan) {
  const InputFacts& facts = request.facts;
  plan.mutable_inputs()->Assign(facts.inputs.begin(), facts.inputs.end());
  if (!request.spec.has_train()) return;
  plan.mutable_target_shape()->Assign(facts.target_shape.begin(), facts.target_shape.end());
  plan.set_target_dtype(facts.target_dtype);
}

}  // namespace

const std::vector<v1::LayerInfo>& ProfileOf(const PlanRequest& request, int worker) {
  return request.profiles.empty() ? request.layers : *request.profiles[worker];
}

int WorkerOf(int stage, int stages, int workers) { return static_cast<int>(int64_t{stage} * workers / stages); }

v1::Timeline TimelineOf(const v1::JobSpec& spec, const InputFacts& facts, int64_t first_step) {
  v1::Timeline timeline;
  timeline.set_samples(facts.samples);
  timeline.set_batch_size(BatchSize(spec));
  if (!spec.has_train()) return timeline;
  const v1::Train& train = spec.train();
  timeline.set_steps(TotalSteps(spec, facts));
  timeline.set_drop_last(train.drop_last());
  timeline.set_evaluate_every(train.evaluate().every_steps());
  timeline.set_evaluation_samples(facts.evaluation_samples);
  timeline.set_checkpoint_every(train.checkpoint_every());
  timeline.set_first_step(first_step);
  if (first_step == 0) timeline.set_check_loss_samples(LossCheckSamples(spec, timeline));
  return timeline;
}

absl::Status CheckSize(const v1::JobSpec& spec, const InputFacts& facts) {
  const int64_t stages = MostStages(spec);
  const int64_t most_samples = std::max(facts.samples, facts.evaluation_samples);
  const int64_t micro_batches = std::min({BatchSize(spec), most_samples, spec.pipeline().chunks()});
  FieldErrors errors;
  if (facts.samples > kMaxSamples) {
    errors.Add(spec.has_train() ? "train.dataset" : "infer.dataset",
               absl::StrCat("has more than ", kMaxSamples, " samples"));
  }
  if (micro_batches > kMaxCells / stages) {
    errors.Add("pipeline.chunks", absl::StrCat("makes ", micro_batches, " micro-batches on up to ", stages,
                                               " stages; together at most ", kMaxCells, " are possible"));
  }
  if (!spec.has_train()) return errors.ToStatus();
  const int64_t steps = TotalSteps(spec, facts);
  if (steps > kMaxSteps) {
    errors.Add(spec.train().epochs() > 0 ? "train.epochs" : "train.steps",
               absl::StrCat("makes ", steps, " steps; at most ", kMaxSteps, " are possible"));
  }
  CheckWarmup(spec.train(), steps, errors);
  if (facts.evaluation_samples > kMaxSteps) {
    errors.Add("train.evaluate.dataset", absl::StrCat("has more than ", kMaxSteps, " samples"));
  }
  return errors.ToStatus();
}

int64_t MostStages(const v1::JobSpec& spec) {
  if (FixedStages(spec) > 0) return FixedStages(spec);
  if (!spec.model().has_exported()) return spec.model().sequential_size();
  return spec.pipeline().workers() > 0 ? spec.pipeline().workers() : kMostExportedStages;
}

absl::StatusOr<v1::Plan> MakePlan(const PlanRequest& request) {
  v1::Plan plan;
  AddStages(request, plan);
  AddShapes(request, plan);
  AddEdges(plan);
  *plan.mutable_timeline() = TimelineOf(request.spec, request.facts, request.first_step);
  GPIPE_RETURN_IF_ERROR(AddPrograms(request.spec, plan));
  return plan;
}

int64_t LeastWorkers(const v1::JobSpec& spec) {
  if (spec.pipeline().workers() > 0) return std::min<int64_t>(spec.pipeline().workers(), MostStages(spec));
  return std::max<int64_t>(FixedStages(spec), 1);
}

int WorkersFor(const v1::JobSpec& spec, int idle) {
  const int64_t least = LeastWorkers(spec);
  if (least > idle) return 0;
  const bool fixed = spec.pipeline().workers() > 0 || FixedStages(spec) > 0;
  return static_cast<int>(fixed ? least : std::min<int64_t>(idle, MostStages(spec)));
}

int64_t TotalSteps(const v1::JobSpec& spec, const InputFacts& facts) {
  if (!spec.has_train()) return 0;
  const v1::Train& train = spec.train();
  if (train.epochs() == 0) return train.steps();
  const int64_t per_epoch = pipeline::StepsPerEpoch(facts.samples, train.batch_size(), train.drop_last());
  // Beyond the type's range it is for ever, all the same.
  if (train.epochs() > std::numeric_limits<int64_t>::max() / per_epoch) return std::numeric_limits<int64_t>::max();
  return train.epochs() * per_epoch;
}

int64_t MicroBatches(const v1::JobSpec& spec, const InputFacts& facts) {
  return std::min({BatchSize(spec), facts.samples, spec.pipeline().chunks()});
}

int64_t LargestMicroBatch(const v1::JobSpec& spec, const InputFacts& facts) {
  const int64_t micro_batches = MicroBatches(spec, facts);
  return (std::min(BatchSize(spec), facts.samples) + micro_batches - 1) / micro_batches;
}

v1::Inspect MakeInspect(const v1::JobSpec& spec, const InputFacts& facts, const FileMap& files, bool measure) {
  v1::Inspect inspect;
  *inspect.mutable_model() = spec.model();
  inspect.mutable_inputs()->Assign(facts.inputs.begin(), facts.inputs.end());
  const std::string& exported = spec.model().exported().path();
  if (const auto file = files.find(exported); file != files.end()) (*inspect.mutable_files())[exported] = file->second;
  // A client may ask for both modes.
  inspect.set_evaluate(spec.model().has_exported() && (spec.train().has_evaluate() || spec::HasClientData(spec)));
  inspect.mutable_evaluation_inputs()->Assign(facts.evaluation_inputs.begin(), facts.evaluation_inputs.end());
  inspect.mutable_evaluation_target_shape()->Assign(facts.evaluation_target_shape.begin(),
                                                    facts.evaluation_target_shape.end());
  if (measure) inspect.set_profile_micro_batch(LargestMicroBatch(spec, facts));
  *inspect.mutable_outputs() = spec.infer().outputs();
  if (!spec.has_train()) return inspect;
  *inspect.mutable_freeze() = spec.train().freeze();
  inspect.set_precision(spec.train().precision());
  inspect.mutable_target_shape()->Assign(facts.target_shape.begin(), facts.target_shape.end());
  inspect.set_target_dtype(facts.target_dtype);
  *inspect.mutable_loss() = spec.train().loss();
  return inspect;
}

int64_t ClassesOf(const v1::JobSpec& spec, const std::vector<v1::LayerInfo>& layers) {
  if (layers.empty() || layers.back().outputs().empty()) return 0;
  return ClassesIn(layers.back().outputs(0).shape(), spec.train().loss().cross_entropy().class_dim());
}

}  // namespace gpipe::orchestrator
