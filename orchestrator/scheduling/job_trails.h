#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_JOB_TRAILS_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_JOB_TRAILS_H_

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "orchestrator/scheduling/step_timelines.h"
#include "orchestrator/scheduling/update_ring.h"

namespace gpipe::orchestrator {

// What is remembered of a job for those who come a little late.
struct JobTrail {
  UpdateRing updates;
  StepTimelines timelines;
  bool stages_wanted = false;  // Somebody has watched what its stages do: its updates say so from then on.
};

// The trails of all jobs that are not over, and of the kMaxEnded that ended last, as long as these have no more than
// kMaxEndedActions actions in their timelines (64 MiB) and are not deleted. In memory only. For the loop's thread.
class JobTrails {
 public:
  static constexpr size_t kMaxEnded = 64;
  static constexpr size_t kMaxEndedActions = size_t{1} << 21;

  JobTrails() = default;
  JobTrails(const JobTrails&) = delete;
  JobTrails& operator=(const JobTrails&) = delete;

  // Of a job that is not over; made if it is not there.
  JobTrail& For(const std::string& id);
  // Null when there is none.
  JobTrail* Find(std::string_view id);
  // The job is over.
  void End(const std::string& id);
  // It is deleted.
  void Forget(const std::string& id);

 private:
  std::map<std::string, std::unique_ptr<JobTrail>, std::less<>> trails_;
  std::deque<std::string> ended_;  // The first one ended first.
  size_t ended_actions_ = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_JOB_TRAILS_H_
