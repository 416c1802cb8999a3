#ifndef GPIPE_ORCHESTRATOR_PLANNING_ROUND_SOURCE_H_
#define GPIPE_ORCHESTRATOR_PLANNING_ROUND_SOURCE_H_

#include <optional>

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// Where the rounds of an attempt come from: a job's timeline (JobRounds), or a client (AskedRounds). For one thread.
class RoundSource {
 public:
  virtual ~RoundSource() = default;

  // The next one, or nullopt: there is none, for now if not over().
  virtual std::optional<v1::Round> Next() = 0;
  // There will be no more than those that Next has given.
  virtual bool over() const = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_ROUND_SOURCE_H_
