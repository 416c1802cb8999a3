#ifndef GPIPE_ORCHESTRATOR_METRICS_COLLECTOR_H_
#define GPIPE_ORCHESTRATOR_METRICS_COLLECTOR_H_

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/metrics/pages.h"
#include "common/metrics/samples.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/jobs/disk_guard.h"
#include "orchestrator/metrics/job_counters.h"
#include "orchestrator/scheduling/job_book.h"
#include "prometheus/registry.h"

namespace gpipe::orchestrator {

// What the orchestrator tells operators' programs: asks the loop when it is asked, and never otherwise. Any thread but
// the loop's may call its methods, until the loop has stopped.
class Collector {
 public:
  // How long the loop may take to answer a scrape or a probe of liveness, and one of readiness.
  static constexpr absl::Duration kPatience = absl::Seconds(5), kReadyPatience = absl::Seconds(1);

  struct Parts {
    const Clock* clock;
    EventLoop* loop;
    Cluster* cluster;
    JobBook* book;
    const DiskGuard* disk;
    const JobCounters* counters;
    const prometheus::Registry* counted;
    std::filesystem::path state_dir;
  };
  // All parts must outlive the collector, and the loop's last task.
  explicit Collector(Parts parts) : parts_(std::move(parts)) {}

  metrics::Pages Pages();

  // From now on it is not ready.
  void SetShuttingDown() { shutting_down_ = true; }

  std::vector<prometheus::MetricFamily> Metrics() const;
  absl::Status Live() const;
  // serving, event_loop, database, disk.
  std::vector<metrics::Check> Ready() const;
  std::string Status() const;

 private:
  const Parts parts_;
  std::atomic<bool> shutting_down_ = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_METRICS_COLLECTOR_H_
