#ifndef GPIPE_COMMON_METRICS_DEFINITION_H_
#define GPIPE_COMMON_METRICS_DEFINITION_H_

#include <string>
#include <vector>

#include "prometheus/metric_type.h"

namespace gpipe::metrics {

// A metric as docs/metrics.md has it. Everything that a daemon exports has one, in its table of definitions.
struct Definition {
  std::string name;
  prometheus::MetricType type = prometheus::MetricType::Gauge;
  std::vector<std::string> labels;
  std::string help;
};

}  // namespace gpipe::metrics

#endif  // GPIPE_COMMON_METRICS_DEFINITION_H_
