#ifndef GPIPE_WORKER_MONITOR_WORKER_MONITOR_H_
#define GPIPE_WORKER_MONITOR_WORKER_MONITOR_H_

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/metrics/pages.h"
#include "gpipe/v1/worker_session.pb.h"
#include "prometheus/registry.h"

namespace gpipe::worker {

// What a worker tells operators' programs, when they ask. Any thread may call any method.
class WorkerMonitor {
 public:
  struct Parts {
    v1::Hello hello;
    std::function<bool()> connected;         // Whether there is a session with the orchestrator.
    std::function<v1::Activity()> activity;  // What the engine does.
    std::function<v1::DeviceUse()> use;      // As of a moment ago.
    const prometheus::Registry* counted;
  };
  // All that the parts use must outlive the monitor.
  explicit WorkerMonitor(Parts parts) : parts_(std::move(parts)) {}

  metrics::Pages Pages();

  // From now on it is not ready.
  void SetLeaving() { leaving_ = true; }

  std::vector<prometheus::MetricFamily> Metrics() const;
  // serving, session.
  std::vector<metrics::Check> Ready() const;
  std::string Status() const;

 private:
  const Parts parts_;
  std::atomic<bool> leaving_ = false;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MONITOR_WORKER_MONITOR_H_
