#ifndef GPIPE_ORCHESTRATOR_PLANNING_ROUND_SOURCE_H_
#define GPIPE_ORCHESTRATOR_PLANNING_ROUND_SOURCE_H_

#include <cstdint>
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

  // What comes after a checkpoint that was asked for.
  enum class Then { kGoOn, kStop };
  // Puts a checkpoint before the next training step, where none is of that step yet; with kStop nothing follows it, and
  // the source is never over. Returns how many steps will have been done then. Nullopt, and nothing changes: no such
  // step is to come.
  virtual std::optional<int64_t> AddCheckpoint(Then then) = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_ROUND_SOURCE_H_
