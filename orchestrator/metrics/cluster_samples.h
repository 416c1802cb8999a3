#ifndef GPIPE_ORCHESTRATOR_METRICS_CLUSTER_SAMPLES_H_
#define GPIPE_ORCHESTRATOR_METRICS_CLUSTER_SAMPLES_H_

#include <string>

#include "absl/time/time.h"
#include "common/metrics/samples.h"
#include "orchestrator/cluster/worker_registry.h"
#include "orchestrator/metrics/job_counters.h"
#include "orchestrator/scheduling/job_book.h"

// What the loop's state says of jobs and workers now. The loop's thread.
namespace gpipe::orchestrator {

void AddJobs(JobBook& book, const JobCounters& counters, absl::Time now, metrics::Samples& samples);
void AddWorkers(WorkerRegistry& registry, absl::Time now, metrics::Samples& samples);

// For people: how many there are by state, and those that are on workers.
std::string DescribeJobs(JobBook& book);
std::string DescribeWorkers(WorkerRegistry& registry);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_METRICS_CLUSTER_SAMPLES_H_
