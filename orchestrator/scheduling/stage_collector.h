#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_STAGE_COLLECTOR_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_STAGE_COLLECTOR_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// A compute action that was done, as small as it can be: those of many steps are kept.
struct DoneAction {
  int64_t start_nanos = 0;  // On the orchestrator's steady clock.
  int64_t nanos = 0;
  int32_t cycle = 0;
  int32_t stage = 0;
  int32_t micro_batch = 0;
  int32_t kind = 0;  // v1::ActionKind.
};

// What the stages did in one round.
struct StepDetail {
  int64_t round = 0;
  v1::StagesDone stages;            // Its step is for whoever knows it.
  std::vector<DoneAction> actions;  // By worker, in the order in which each did them; none where there were too many.
};

// Puts together what the workers of an attempt report of the actions of each round. Pure; one thread.
class StageCollector {
 public:
  // Of the actions of all rounds under way so many are kept; times are added up in any case.
  static constexpr size_t kMaxActions = size_t{1} << 18;

  StageCollector(const v1::Plan& plan, std::vector<std::string> workers);

  // An action of a round that the worker has not reported. INVALID_ARGUMENT: of a stage that is not the worker's.
  absl::Status Add(int worker, const v1::ActionDone& action);

  // A worker's report of a round; of each round once. Set when it was the last worker's. INVALID_ARGUMENT: traffic with
  // a worker that is none.
  absl::StatusOr<std::optional<StepDetail>> Add(int worker, const v1::RoundDone& round);

 private:
  struct Partial {
    size_t reports = 0;
    int64_t wall_nanos = 0;
    std::vector<v1::StageDone> stages;
    std::vector<std::vector<DoneAction>> actions;  // By worker.
    size_t kept = 0;                               // Actions.
    bool too_many = false;
  };

  Partial& PartialOf(int64_t round);
  void Keep(int worker, const v1::ActionDone& action, Partial& partial);
  StepDetail Finish(Partial partial) const;

  const v1::Plan& plan_;
  const std::vector<std::string> workers_;
  size_t kept_ = 0;                      // Actions of all partials.
  std::map<int64_t, Partial> partials_;  // By round; as many as the window is wide.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_STAGE_COLLECTOR_H_
