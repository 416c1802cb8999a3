#ifndef GPIPE_COMMON_METRICS_PAGES_H_
#define GPIPE_COMMON_METRICS_PAGES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/http/http_server.h"
#include "prometheus/metric_family.h"

namespace gpipe::metrics {

// One thing that must be so for a daemon to be ready.
struct Check {
  std::string name;     // As in /readyz/NAME.
  absl::Status status;  // Why not.
};

// What a daemon tells operators' programs. All are called by any thread, several at a time, and take a bounded time.
struct Pages {
  std::function<std::vector<prometheus::MetricFamily>()> metrics;
  // Not OK: only a restart will help.
  std::function<absl::Status()> live;
  // Always the same names, in the same order.
  std::function<std::vector<Check>()> ready;
  // What the daemon itself adds to its version, its uptime and its threads: whole lines.
  std::function<std::string()> status;
};

// Serves /metrics, /livez, /readyz, /readyz/CHECK and /statusz. A page of health is 200, or 503 where it says what
// fails.
void AddPages(const std::string& program, Pages pages, HttpServer& server);

}  // namespace gpipe::metrics

#endif  // GPIPE_COMMON_METRICS_PAGES_H_
