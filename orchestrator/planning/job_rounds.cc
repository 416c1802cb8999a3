#include "orchestrator/planning/job_rounds.h"

#include "common/plan/convert.h"
#include "common/spec/validator.h"
#include "orchestrator/planning/lr_schedule.h"

namespace gpipe::orchestrator {

JobRounds::JobRounds(const v1::JobSpec& spec, const v1::Plan& plan)
    : train_(spec::WithDefaults(spec).train()), steps_(plan.timeline().steps()), cursor_(FromProto(plan.timeline())) {
  for (int i = 0; i < plan.programs_size(); ++i) {
    programs_[{plan.programs(i).kind(), plan.programs(i).batch_size()}] = i;
  }
}

std::optional<v1::Round> JobRounds::Next() {
  const std::optional<pipeline::Round> round = cursor_.Next();
  over_ = !round.has_value();
  if (over_) return std::nullopt;
  v1::Round told = ToProto(*round);
  if (pipeline::ComputesNothing(round->kind)) return told;
  // A worker refuses a round that has none.
  const auto program = programs_.find({ProgramKindOf(round->kind), round->batch_size});
  if (program != programs_.end()) told.set_program(program->second);
  if (round->kind == pipeline::RoundKind::kTrain) {
    told.set_learning_rate(LearningRate(train_, train_.lr_schedule(), round->step, steps_));
  }
  return told;
}

}  // namespace gpipe::orchestrator
