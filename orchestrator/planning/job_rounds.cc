#include "orchestrator/planning/job_rounds.h"

#include "common/plan/convert.h"
#include "common/spec/validator.h"
#include "orchestrator/planning/lr_schedule.h"

namespace gpipe::orchestrator {

JobRounds::JobRounds(const v1::JobSpec& spec, const v1::Plan& plan)
    : train_(spec::WithDefaults(spec).train()),
      steps_(plan.timeline().steps()),
      cursor_(FromProto(plan.timeline())),
      saved_step_(plan.timeline().first_step()) {
  for (int i = 0; i < plan.programs_size(); ++i) {
    programs_[{plan.programs(i).kind(), plan.programs(i).batch_size()}] = i;
  }
}

std::optional<v1::Round> JobRounds::Next() {
  std::optional<pipeline::Round> round = NextRound();
  if (!round.has_value()) return std::nullopt;
  round->index = next_index_++;
  if (round->kind == pipeline::RoundKind::kCheckpoint) saved_step_ = round->step;
  return Told(*round);
}

std::optional<pipeline::Round> JobRounds::NextRound() {
  if (std::optional<pipeline::Round> checkpoint = TakeCheckpoint()) return checkpoint;
  return stopped_ ? std::nullopt : cursor_.Next();
}

bool JobRounds::over() const {
  pipeline::RoundCursor ahead = cursor_;
  return !stopped_ && !ahead.Next().has_value();
}

std::optional<pipeline::Round> JobRounds::TakeCheckpoint() {
  if (!asked_.has_value() || !cursor_.trains_next()) return std::nullopt;
  stopped_ = *asked_ == Then::kStop;
  asked_.reset();
  if (cursor_.step() == saved_step_) return std::nullopt;
  return pipeline::Round{.kind = pipeline::RoundKind::kCheckpoint, .step = cursor_.step()};
}

std::optional<int64_t> JobRounds::AddCheckpoint(Then then) {
  if (cursor_.step() >= steps_) return std::nullopt;
  if (!stopped_ && asked_ != Then::kStop) asked_ = then;
  return cursor_.step();
}

v1::Round JobRounds::Told(const pipeline::Round& round) const {
  v1::Round told = ToProto(round);
  if (pipeline::ComputesNothing(round.kind)) return told;
  // A worker refuses a round that has none.
  const auto program = programs_.find({ProgramKindOf(round.kind), round.batch_size});
  if (program != programs_.end()) told.set_program(program->second);
  if (round.kind == pipeline::RoundKind::kTrain) {
    told.set_learning_rate(LearningRate(train_, train_.lr_schedule(), round.step, steps_));
  }
  return told;
}

}  // namespace gpipe::orchestrator
