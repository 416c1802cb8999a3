#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_STEP_TIMELINES_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_STEP_TIMELINES_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/monitoring.pb.h"
#include "orchestrator/scheduling/stage_collector.h"

namespace gpipe::orchestrator {

// The actions of the last steps of one job: of its newest attempt that has done a step, at most kMaxSteps steps and
// kMaxActions actions. In memory: after a restart of the orchestrator there are none of the time before. One thread.
class StepTimelines {
 public:
  static constexpr size_t kMaxSteps = 16;
  static constexpr size_t kMaxActions = StageCollector::kMaxActions;  // 8 MiB.

  // The next step of the job's attempt; one of a new attempt drops those of the last one. `job` says on which workers.
  void Add(const v1::Job& job, const v1::StepMetrics& metrics, StepDetail detail);

  // 0: the last one. NOT_FOUND says which steps are kept.
  absl::StatusOr<v1::StepTimeline> Get(int64_t step) const;

  size_t actions() const { return actions_; }

 private:
  struct Step {
    int64_t round = 0;
    v1::StepMetrics metrics;
    std::vector<DoneAction> actions;  // By start.
  };

  void DropOldest();
  const Step* Find(int64_t step) const;
  absl::Status NotKept(int64_t step) const;
  v1::StepTimeline Describe(const Step& step) const;

  v1::StepTimeline attempt_;  // What the timelines of all steps have in common.
  std::deque<Step> steps_;    // Ascending.
  size_t actions_ = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_STEP_TIMELINES_H_
