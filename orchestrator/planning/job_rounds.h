#ifndef GPIPE_ORCHESTRATOR_PLANNING_JOB_ROUNDS_H_
#define GPIPE_ORCHESTRATOR_PLANNING_JOB_ROUNDS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/planning/round_source.h"
#include "pipeline/timeline.h"

namespace gpipe::orchestrator {

// The rounds of a training or an inference job, one after the other, as its workers are told them: the timeline's
// (pipeline/timeline.h), each with the plan's program that it runs and the learning rate of its step; and checkpoints
// that were asked for. Pure; one thread.
class JobRounds final : public RoundSource {
 public:
  // REQUIRES: the plan has a program for every round of its timeline.
  JobRounds(const v1::JobSpec& spec, const v1::Plan& plan);

  std::optional<v1::Round> Next() override;
  bool over() const override;
  std::optional<int64_t> AddCheckpoint(Then then) override;

 private:
  std::optional<pipeline::Round> NextRound();
  // The one that was asked for, if it is due; an evaluation comes before it, as whoever starts from it has that behind
  // him.
  std::optional<pipeline::Round> TakeCheckpoint();
  v1::Round Told(const pipeline::Round& round) const;

  v1::Train train_;
  int64_t steps_;  // Of the whole job.
  pipeline::RoundCursor cursor_;
  std::map<std::pair<v1::ProgramKind, int64_t>, int> programs_;  // By kind and size of the mini-batch.
  int64_t saved_step_;         // Of the last checkpoint so far; that which the attempt began with.
  std::optional<Then> asked_;  // For a checkpoint that is not due yet.
  bool stopped_ = false;
  int64_t next_index_ = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_JOB_ROUNDS_H_
