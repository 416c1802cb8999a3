#include "orchestrator/metrics/job_counters.h"

#include <algorithm>
#include <cmath>

#include "google/protobuf/util/time_util.h"
#include "orchestrator/metrics/definitions.h"
#include "orchestrator/scheduling/failure.h"

namespace gpipe::orchestrator {
namespace {

constexpr std::string_view kOther = "OTHER";
constexpr std::string_view kCodes[] = {
    "WORKER_LOST",  "WORKER_LEFT", "WORKER_UNREACHABLE", "NOT_FINITE", "OUT_OF_MEMORY", "DISK_FULL", "MISSING_FILE",
    "INVALID_SPEC", "STALLED",     kDamagedFile,         "INTERNAL"};

}  // namespace

std::string_view KnownCode(std::string_view code) {
  const auto* found = std::ranges::find(kCodes, code);
  return found == std::end(kCodes) ? kOther : *found;
}

// A job that restarts by itself says when; the other reasons are the orchestrator's own stops, and workers that could
// not be reached.
std::string_view RestartReason(const v1::Job& job) {
  if (job.has_restart_time()) return KnownCode(job.last_failure().code());
  const bool stopped = job.reason().starts_with("orchestrator ") || job.reason().starts_with("the orchestrator ");
  return stopped ? "ORCHESTRATOR_STOPPED" : "WORKER_UNREACHABLE";
}

JobCounters::JobCounters(prometheus::Registry& registry, const Clock& clock)
    : clock_(clock),
      submitted_(metrics::MakeCounter(registry, metric::kSubmitted)),
      ended_(registry, metric::kEnded),
      failures_(registry, metric::kFailures),
      restarts_(registry, metric::kRestarts),
      queue_wait_(metrics::MakeHistogram(registry, metric::kQueueWait, metrics::kSeconds)),
      steps_(metrics::MakeCounter(registry, metric::kSteps)),
      samples_(metrics::MakeCounter(registry, metric::kSamples)),
      step_duration_(metrics::MakeHistogram(registry, metric::kStepDuration, metrics::kSeconds)) {
  // What has not happened yet is 0, so that its first time is an increase.
  for (const v1::Job::State state : {v1::Job::STATE_SUCCEEDED, v1::Job::STATE_FAILED, v1::Job::STATE_CANCELLED}) {
    ended_.At({std::string(StateName(state))});
  }
  for (const std::string_view code : kCodes) failures_.At({std::string(code)});
  for (const std::string_view code : {"WORKER_LOST", "WORKER_LEFT", "WORKER_UNREACHABLE", "ORCHESTRATOR_STOPPED"}) {
    restarts_.At({std::string(code)});
  }
}

void JobCounters::OnAdded(const v1::Job&) { submitted_.Increment(); }

void JobCounters::OnChanged(const v1::Job& job, JobEvent event) {
  if (event == JobEvent::kRequeue) {
    restarts_.At({std::string(RestartReason(job))}).Increment();
    queued_again_[job.id()] = clock_.Now();
    return;
  }
  if (event == JobEvent::kPlaced) queue_wait_.Observe(absl::ToDoubleSeconds(clock_.Now() - QueuedSince(job)));
  if (IsTerminal(job.state())) OnEnded(job);
  queued_again_.erase(job.id());
}

void JobCounters::OnEnded(const v1::Job& job) {
  ended_.At({std::string(StateName(job.state()))}).Increment();
  if (job.state() == v1::Job::STATE_FAILED) failures_.At({std::string(KnownCode(job.failure().code()))}).Increment();
}

void JobCounters::OnStep(const v1::Job&, const v1::StepMetrics& step) {
  steps_.Increment();
  samples_.Increment(std::round(step.samples_per_second() * step.step_seconds()));
  step_duration_.Observe(step.step_seconds());
}

absl::Time JobCounters::QueuedSince(const v1::Job& job) const {
  const auto found = queued_again_.find(job.id());
  if (found != queued_again_.end()) return found->second;
  using google::protobuf::util::TimeUtil;
  return std::min(clock_.Now(), absl::FromUnixNanos(TimeUtil::TimestampToNanoseconds(job.create_time())));
}

}  // namespace gpipe::orchestrator
