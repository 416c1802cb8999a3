#include "common/plan/convert.h"

namespace gpipe {

v1::ActionKind ToProto(pipeline::ActionKind kind) {
  return static_cast<v1::ActionKind>(pipeline::TraitsOf(kind).proto);
}

std::optional<pipeline::ActionKind> FromProto(v1::ActionKind kind) {
  for (const pipeline::KindTraits& traits : pipeline::kKindTraits) {
    if (traits.proto == kind) return traits.kind;
  }
  return std::nullopt;
}

v1::Row ToProto(const std::vector<pipeline::Action>& row) {
  v1::Row proto;
  for (const pipeline::Action& action : row) {
    v1::Action* added = proto.add_actions();
    added->set_stage(action.stage);
    added->set_kind(ToProto(action.kind));
    added->set_micro_batch(action.micro_batch);
    added->set_cycle(action.cycle);
    added->set_edge(action.edge);
    added->set_checkpointed(action.checkpointed);
  }
  return proto;
}

std::vector<pipeline::Action> FromProto(const v1::Row& row) {
  std::vector<pipeline::Action> actions;
  actions.reserve(row.actions_size());
  for (const v1::Action& action : row.actions()) {
    actions.push_back({.stage = action.stage(),
                       .kind = *FromProto(action.kind()),
                       .micro_batch = action.micro_batch(),
                       .cycle = action.cycle(),
                       .edge = action.edge(),
                       .checkpointed = action.checkpointed()});
  }
  return actions;
}

static_assert(static_cast<int>(pipeline::ScheduleKind::kGPipe) == v1::SCHEDULE_KIND_GPIPE);

pipeline::ScheduleKind FromProto(v1::ScheduleKind kind) { return static_cast<pipeline::ScheduleKind>(kind); }

pipeline::TimelineSpec FromProto(const v1::Timeline& timeline) {
  return {.samples = timeline.samples(),
          .batch_size = timeline.batch_size(),
          .steps = timeline.steps(),
          .drop_last = timeline.drop_last(),
          .evaluate_every = timeline.evaluate_every(),
          .evaluation_samples = timeline.evaluation_samples(),
          .checkpoint_every = timeline.checkpoint_every(),
          .first_step = timeline.first_step(),
          .check_loss_samples = timeline.check_loss_samples()};
}

v1::Timeline ToProto(const pipeline::TimelineSpec& timeline) {
  v1::Timeline proto;
  proto.set_samples(timeline.samples);
  proto.set_batch_size(timeline.batch_size);
  proto.set_steps(timeline.steps);
  proto.set_drop_last(timeline.drop_last);
  proto.set_evaluate_every(timeline.evaluate_every);
  proto.set_evaluation_samples(timeline.evaluation_samples);
  proto.set_checkpoint_every(timeline.checkpoint_every);
  proto.set_first_step(timeline.first_step);
  proto.set_check_loss_samples(timeline.check_loss_samples);
  return proto;
}

// The kinds have the same order, from 1 on.
static_assert(static_cast<int>(pipeline::RoundKind::kTrain) + 1 == v1::ROUND_KIND_TRAIN);
static_assert(static_cast<int>(pipeline::RoundKind::kCheckLoss) + 1 == v1::ROUND_KIND_CHECK_LOSS);
static_assert(static_cast<int>(pipeline::RoundKind::kStoreModel) + 1 == v1::ROUND_KIND_STORE_MODEL);
static_assert(static_cast<int>(pipeline::RoundKind::kForward) + 1 == v1::ROUND_KIND_FORWARD);
static_assert(static_cast<int>(pipeline::RoundKind::kSetState) + 1 == v1::ROUND_KIND_SET_STATE);
static_assert(v1::RoundKind_MAX == v1::ROUND_KIND_SET_STATE);

v1::Round ToProto(const pipeline::Round& round) {
  v1::Round proto;
  proto.set_index(round.index);
  proto.set_kind(static_cast<v1::RoundKind>(static_cast<int>(round.kind) + 1));
  proto.set_step(round.step);
  proto.set_epoch(round.epoch);
  proto.set_first_sample(round.first_sample);
  proto.set_batch_size(round.batch_size);
  proto.set_last_of_kind(round.last_of_kind);
  proto.set_program(-1);
  return proto;
}

std::optional<pipeline::Round> FromProto(const v1::Round& round) {
  if (!v1::RoundKind_IsValid(round.kind()) || round.kind() == v1::ROUND_KIND_UNSPECIFIED) return std::nullopt;
  return pipeline::Round{.index = round.index(),
                         .kind = static_cast<pipeline::RoundKind>(round.kind() - 1),
                         .step = round.step(),
                         .epoch = round.epoch(),
                         .first_sample = round.first_sample(),
                         .batch_size = round.batch_size(),
                         .last_of_kind = round.last_of_kind()};
}

v1::ProgramKind ProgramKindOf(pipeline::RoundKind kind) {
  switch (kind) {
    case pipeline::RoundKind::kTrain:
      return v1::PROGRAM_KIND_TRAIN;
    case pipeline::RoundKind::kEvaluate:
      return v1::PROGRAM_KIND_EVALUATE;
    case pipeline::RoundKind::kInfer:
    case pipeline::RoundKind::kPredict:
      return v1::PROGRAM_KIND_INFER;
    case pipeline::RoundKind::kForward:
      return v1::PROGRAM_KIND_FORWARD;
    case pipeline::RoundKind::kBackward:
      return v1::PROGRAM_KIND_BACKWARD;
    case pipeline::RoundKind::kUpdate:
      return v1::PROGRAM_KIND_UPDATE;
    case pipeline::RoundKind::kCheckLoss:
      return v1::PROGRAM_KIND_CHECK_LOSS;
    default:
      break;
  }
  return v1::PROGRAM_KIND_UNSPECIFIED;
}

pipeline::Link FromProto(const v1::LinkSpeed& link) {
  pipeline::Link converted{.latency_seconds = link.latency_seconds()};
  if (link.bytes_per_second() > 0) converted.bytes_per_second = link.bytes_per_second();
  return converted;
}

std::vector<pipeline::Edge> EdgesOf(const v1::Plan& plan) {
  std::vector<pipeline::Edge> edges;
  for (const v1::Edge& edge : plan.edges()) {
    edges.push_back({edge.value(), edge.from_stage(), edge.to_stage(), edge.requires_grad()});
  }
  return edges;
}

pipeline::Schedule ScheduleOf(const v1::Plan& plan, const v1::Program& program) {
  pipeline::Schedule schedule;
  schedule.stages = plan.stages_size();
  schedule.micro_batches = program.micro_batch_sizes_size();
  schedule.cycles = program.cycles();
  schedule.stage_worker.assign(plan.stage_worker().begin(), plan.stage_worker().end());
  for (const v1::Row& row : program.rows()) schedule.rows.push_back(FromProto(row));
  return schedule;
}

}  // namespace gpipe
