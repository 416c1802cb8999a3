#ifndef GPIPE_TESTS_UNIT_ALL_ROUNDS_H_
#define GPIPE_TESTS_UNIT_ALL_ROUNDS_H_

#include <utility>

#include "orchestrator/planning/job_rounds.h"

namespace gpipe {

// All rounds of a small job, as if they were told at once.
inline v1::Rounds AllRounds(const v1::JobSpec& spec, const v1::Plan& plan) {
  v1::Rounds rounds;
  orchestrator::JobRounds source(spec, plan);
  while (std::optional<v1::Round> round = source.Next()) *rounds.add_rounds() = *std::move(round);
  rounds.set_complete(true);
  return rounds;
}

}  // namespace gpipe

#endif  // GPIPE_TESTS_UNIT_ALL_ROUNDS_H_
