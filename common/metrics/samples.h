#ifndef GPIPE_COMMON_METRICS_SAMPLES_H_
#define GPIPE_COMMON_METRICS_SAMPLES_H_

#include <map>
#include <string>
#include <vector>

#include "common/metrics/definition.h"
#include "prometheus/metric_family.h"

namespace gpipe::metrics {

// Values that are known where somebody asks for them, put together for one scrape. One thread.
class Samples {
 public:
  // `labels` are the values, in the order of the definition's names. A definition without samples is left out.
  void Add(const Definition& definition, double value, const std::vector<std::string>& labels = {});

  std::vector<prometheus::MetricFamily> Take();

 private:
  std::map<std::string, prometheus::MetricFamily> families_;
};

}  // namespace gpipe::metrics

#endif  // GPIPE_COMMON_METRICS_SAMPLES_H_
