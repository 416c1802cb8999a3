#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_JOB_OBSERVER_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_JOB_OBSERVER_H_

#include "gpipe/v1/job.pb.h"
#include "orchestrator/jobs/job_state.h"

namespace gpipe::orchestrator {

// Who counts what happens to jobs. Called on the loop's thread, as it happens.
class JobObserver {
 public:
  virtual ~JobObserver() = default;
  // A new job, which is QUEUED.
  virtual void OnAdded(const v1::Job& job) = 0;
  // It has changed to the state, and for the reason, that it now has.
  virtual void OnChanged(const v1::Job& job, JobEvent event) = 0;
  virtual void OnStep(const v1::Job& job, const v1::StepMetrics& step) = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_JOB_OBSERVER_H_
