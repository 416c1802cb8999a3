#include "orchestrator/planning/programs.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/plan/checkpoint_mode.h"
#include "common/plan/convert.h"
#include "common/plan/evaluation.h"
#include "common/plan/gradient_norm.h"
#include "common/plan/shared_tensors.h"
#include "common/status_macros.h"
#include "pipeline/schedule.h"
#include "pipeline/timeline.h"

namespace gpipe::orchestrator {
namespace {

pipeline::ScheduleOptions OptionsFor(const v1::JobSpec& spec, const v1::Plan& plan, bool training) {
  pipeline::ScheduleOptions options{.stages = plan.stages_size(), .training = training};
  options.stage_worker.assign(plan.stage_worker().begin(), plan.stage_worker().end());
  options.checkpoint = FromProto(spec.pipeline().checkpoint());
  for (const v1::Stage& stage : plan.stages()) options.needs_backward.push_back(stage.needs_backward());
  options.reduce_gradients = training && (NeedsGradientNorm(spec.train()) || SharesGradients(plan));
  return options;
}

// Those of evaluation are behind the plan's others.
void CountEdgesFrom(int first, pipeline::Schedule& schedule) {
  for (std::vector<pipeline::Action>& row : schedule.rows) {
    for (pipeline::Action& action : row) {
      if (pipeline::IsTransfer(action.kind)) action.edge += first;
    }
  }
}

absl::Status AddProgram(const v1::JobSpec& spec, v1::ProgramKind kind, int64_t batch_size, v1::Plan& plan) {
  const int64_t chunks = kind == v1::PROGRAM_KIND_CHECK_LOSS ? 1 : spec.pipeline().chunks();
  pipeline::ScheduleOptions options = OptionsFor(spec, plan, kind == v1::PROGRAM_KIND_TRAIN);
  options.micro_batches = static_cast<int>(std::min(batch_size, chunks));
  GPIPE_ASSIGN_OR_RETURN(pipeline::Schedule schedule,
                         pipeline::MakeSchedule(FromProto(spec.pipeline().schedule()), options));
  const bool evaluates = kind != v1::PROGRAM_KIND_TRAIN && HasEvaluation(plan);
  const std::vector<pipeline::Edge> edges = evaluates ? EdgesOf(EvaluationPlan(plan)) : EdgesOf(plan);
  GPIPE_RETURN_IF_ERROR(pipeline::AddCommunication(edges, schedule));
  GPIPE_RETURN_IF_ERROR(pipeline::ValidateSchedule(schedule, edges));
  if (evaluates) CountEdgesFrom(plan.edges_size(), schedule);

  v1::Program& program = *plan.add_programs();
  program.set_kind(kind);
  program.set_batch_size(batch_size);
  for (int64_t size : pipeline::MicroBatchSizes(batch_size, chunks)) {
    program.add_micro_batch_sizes(size);
  }
  program.set_cycles(schedule.cycles);
  for (const auto& row : schedule.rows) *program.add_rows() = ToProto(row);
  return absl::OkStatus();
}

// Full mini-batches and the smaller one at the end of a data set.
BatchSizes SizesOf(int64_t samples, int64_t batch_size, bool drop_last) {
  BatchSizes sizes;
  if (samples >= batch_size) sizes.insert(batch_size);
  if (!drop_last && samples % batch_size != 0) sizes.insert(samples % batch_size);
  return sizes;
}

}  // namespace

BatchSizes TrainingSizes(const v1::Timeline& timeline) {
  const int64_t per_epoch = pipeline::StepsPerEpoch(timeline.samples(), timeline.batch_size(), timeline.drop_last());
  BatchSizes sizes = SizesOf(timeline.samples(), timeline.batch_size(), timeline.drop_last());
  if (sizes.size() == 2 && timeline.steps() < per_epoch) sizes.erase(*sizes.rbegin());
  return sizes;
}

absl::Status AddPrograms(const v1::JobSpec& spec, v1::Plan& plan) {
  const v1::Timeline& timeline = plan.timeline();
  if (spec.has_infer()) {
    for (int64_t size : SizesOf(timeline.samples(), timeline.batch_size(), false)) {
      GPIPE_RETURN_IF_ERROR(AddProgram(spec, v1::PROGRAM_KIND_INFER, size, plan));
    }
    return absl::OkStatus();
  }
  for (int64_t size : TrainingSizes(timeline)) {
    GPIPE_RETURN_IF_ERROR(AddProgram(spec, v1::PROGRAM_KIND_TRAIN, size, plan));
  }
  if (const int64_t samples = timeline.check_loss_samples(); samples > 0) {
    GPIPE_RETURN_IF_ERROR(AddProgram(spec, v1::PROGRAM_KIND_CHECK_LOSS, samples, plan));
    GPIPE_RETURN_IF_ERROR(AddProgram(spec, v1::PROGRAM_KIND_CHECK_LOSS, 2 * samples, plan));
  }
  if (timeline.evaluation_samples() == 0) return absl::OkStatus();
  for (int64_t size : SizesOf(timeline.evaluation_samples(), timeline.batch_size(), false)) {
    GPIPE_RETURN_IF_ERROR(AddProgram(spec, v1::PROGRAM_KIND_EVALUATE, size, plan));
  }
  return absl::OkStatus();
}

}  // namespace gpipe::orchestrator
