#include "orchestrator/planning/programs.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/plan/checkpoint_mode.h"
#include "common/plan/convert.h"
#include "common/plan/evaluation.h"
#include "common/plan/gradient_norm.h"
#include "common/plan/shared_tensors.h"
#include "common/spec/client_data.h"
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

int64_t ChunksOf(const v1::JobSpec& spec, v1::ProgramKind kind) {
  return kind == v1::PROGRAM_KIND_CHECK_LOSS ? 1 : spec.pipeline().chunks();
}

// Lowered, and valid.
absl::StatusOr<pipeline::Schedule> MakeSchedule(const v1::JobSpec& spec, v1::ProgramKind kind, int64_t batch_size,
                                                const v1::Plan& plan) {
  pipeline::ScheduleOptions options = OptionsFor(spec, plan, kind == v1::PROGRAM_KIND_TRAIN);
  options.micro_batches = static_cast<int>(std::min(batch_size, ChunksOf(spec, kind)));
  GPIPE_ASSIGN_OR_RETURN(pipeline::Schedule schedule,
                         pipeline::MakeSchedule(FromProto(spec.pipeline().schedule()), options));
  const bool evaluates = kind != v1::PROGRAM_KIND_TRAIN && HasEvaluation(plan);
  const std::vector<pipeline::Edge> edges = evaluates ? EdgesOf(EvaluationPlan(plan)) : EdgesOf(plan);
  GPIPE_RETURN_IF_ERROR(pipeline::AddCommunication(edges, schedule));
  GPIPE_RETURN_IF_ERROR(pipeline::ValidateSchedule(schedule, edges));
  if (evaluates) CountEdgesFrom(plan.edges_size(), schedule);
  return schedule;
}

void AddSchedule(const v1::JobSpec& spec, v1::ProgramKind kind, int64_t batch_size, const pipeline::Schedule& schedule,
                 v1::Plan& plan) {
  v1::Program& program = *plan.add_programs();
  program.set_kind(kind);
  program.set_batch_size(batch_size);
  if (batch_size > 0) {
    for (int64_t size : pipeline::MicroBatchSizes(batch_size, ChunksOf(spec, kind))) {
      program.add_micro_batch_sizes(size);
    }
  }
  program.set_cycles(schedule.cycles);
  for (const auto& row : schedule.rows) *program.add_rows() = ToProto(row);
}

absl::Status AddProgram(const v1::JobSpec& spec, v1::ProgramKind kind, int64_t batch_size, v1::Plan& plan) {
  GPIPE_ASSIGN_OR_RETURN(const pipeline::Schedule schedule, MakeSchedule(spec, kind, batch_size, plan));
  AddSchedule(spec, kind, batch_size, schedule, plan);
  return absl::OkStatus();
}

// The clock cycles from `begin` to before `end`, as a schedule of its own.
pipeline::Schedule CyclesOf(const pipeline::Schedule& whole, int begin, int end) {
  pipeline::Schedule part = whole;
  part.cycles = end - begin;
  for (std::vector<pipeline::Action>& row : part.rows) {
    std::erase_if(row, [&](const pipeline::Action& action) { return action.cycle < begin || action.cycle >= end; });
    for (pipeline::Action& action : row) action.cycle -= begin;
  }
  return part;
}

// Behind the last cycle that has an action of such a kind.
template <typename Predicate>
int EndOf(const pipeline::Schedule& schedule, Predicate matches) {
  int end = 0;
  for (const std::vector<pipeline::Action>& row : schedule.rows) {
    for (const pipeline::Action& action : row) {
      if (matches(action.kind)) end = std::max(end, action.cycle + 1);
    }
  }
  return end;
}

bool GoesForward(pipeline::ActionKind kind) { return pipeline::DirectionOf(kind) == pipeline::Direction::kForward; }

bool HasUpdate(const v1::Plan& plan) {
  return std::ranges::any_of(plan.programs(), [](const v1::Program& p) { return p.kind() == v1::PROGRAM_KIND_UPDATE; });
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

// A training program, whose forward, backward and last cycles a client asks for one by one: what is valid together is
// so in its parts.
absl::Status AddClientPrograms(const v1::JobSpec& spec, int64_t batch_size, v1::Plan& plan) {
  GPIPE_ASSIGN_OR_RETURN(const pipeline::Schedule whole, MakeSchedule(spec, v1::PROGRAM_KIND_TRAIN, batch_size, plan));
  const int forward = EndOf(whole, GoesForward), backward = EndOf(whole, pipeline::HasMicroBatch);
  AddSchedule(spec, v1::PROGRAM_KIND_FORWARD, batch_size, CyclesOf(whole, 0, forward), plan);
  AddSchedule(spec, v1::PROGRAM_KIND_BACKWARD, batch_size, CyclesOf(whole, forward, backward), plan);
  if (!HasUpdate(plan)) AddSchedule(spec, v1::PROGRAM_KIND_UPDATE, 0, CyclesOf(whole, backward, whole.cycles), plan);
  return AddProgram(spec, v1::PROGRAM_KIND_INFER, batch_size, plan);
}

absl::Status AddPrograms(const v1::JobSpec& spec, v1::Plan& plan) {
  const v1::Timeline& timeline = plan.timeline();
  if (spec::HasClientData(spec)) {
    // What the forecast is made of.
    GPIPE_RETURN_IF_ERROR(AddProgram(spec, v1::PROGRAM_KIND_TRAIN, timeline.batch_size(), plan));
    return AddClientPrograms(spec, timeline.batch_size(), plan);
  }
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
