#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_ANSWER_COLLECTOR_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_ANSWER_COLLECTOR_H_

#include <cstdint>
#include <map>
#include <optional>

#include "gpipe/v1/pipeline_service.pb.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// Puts together what the workers of an attempt have made in one round. For one thread.
class AnswerCollector {
 public:
  explicit AnswerCollector(int workers) : workers_(workers) {}

  // A worker's part, of which each round has one by each worker; the whole with the last of them.
  std::optional<v1::RoundAnswer> Add(const v1::RoundDone& round) {
    Partial& partial = partials_[round.round()];
    if (round.has_result()) *partial.answer.add_results() = round.result();
    if (++partial.reports < workers_) return std::nullopt;
    v1::RoundAnswer answer = std::move(partial.answer);
    answer.set_round(round.round());
    partials_.erase(round.round());
    return answer;
  }

 private:
  struct Partial {
    v1::RoundAnswer answer;
    int reports = 0;
  };
  const int workers_;
  std::map<int64_t, Partial> partials_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_ANSWER_COLLECTOR_H_
