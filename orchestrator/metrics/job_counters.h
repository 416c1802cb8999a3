#ifndef GPIPE_ORCHESTRATOR_METRICS_JOB_COUNTERS_H_
#define GPIPE_ORCHESTRATOR_METRICS_JOB_COUNTERS_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/metrics/counted.h"
#include "orchestrator/scheduling/job_observer.h"

namespace gpipe::orchestrator {

// Counts what becomes of jobs, as it happens. The loop's thread calls everything.
class JobCounters final : public JobObserver {
 public:
  // Both must outlive it.
  JobCounters(prometheus::Registry& registry, const Clock& clock);

  void OnAdded(const v1::Job& job) override;
  void OnChanged(const v1::Job& job, JobEvent event) override;
  void OnStep(const v1::Job& job, const v1::StepMetrics& step) override;

  // Since when it has waited for workers. REQUIRES: it is QUEUED.
  absl::Time QueuedSince(const v1::Job& job) const;

 private:
  void OnEnded(const v1::Job& job);

  const Clock& clock_;
  prometheus::Counter& submitted_;
  metrics::CounterFamily ended_;
  metrics::CounterFamily failures_;
  metrics::CounterFamily restarts_;
  prometheus::Histogram& queue_wait_;
  prometheus::Counter& steps_;
  prometheus::Counter& samples_;
  prometheus::Histogram& step_duration_;
  std::map<std::string, absl::Time, std::less<>> queued_again_;  // Jobs that are QUEUED, by id; not for the first time.
};

// What ended the attempt of a job that has just queued again, in a word of a short list.
std::string_view RestartReason(const v1::Job& job);
// The failure's code, in a word of a short list.
std::string_view KnownCode(std::string_view code);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_METRICS_JOB_COUNTERS_H_
