#ifndef GPIPE_COMMON_METRICS_COUNTED_H_
#define GPIPE_COMMON_METRICS_COUNTED_H_

#include <string>
#include <vector>

#include "common/metrics/definition.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

// Values that are counted where things happen. Any thread may count: a counter is an atomic number, a histogram has a
// lock of its own that only a scrape ever holds. The registry must outlive what is made here.
namespace gpipe::metrics {

// A counter for each combination of values of its labels, which must be few.
class CounterFamily {
 public:
  CounterFamily(prometheus::Registry& registry, const Definition& definition)
      : labels_(definition.labels),
        family_(prometheus::BuildCounter().Name(definition.name).Help(definition.help).Register(registry)) {}

  // Finds, or makes, with a lock: whoever counts often keeps it.
  prometheus::Counter& At(const std::vector<std::string>& values = {}) {
    prometheus::Labels labels;
    for (size_t i = 0; i < labels_.size(); ++i) labels[labels_[i]] = values.at(i);
    return family_.Add(labels);
  }

 private:
  const std::vector<std::string> labels_;
  prometheus::Family<prometheus::Counter>& family_;
};

inline prometheus::Counter& MakeCounter(prometheus::Registry& registry, const Definition& definition) {
  return CounterFamily(registry, definition).At();
}

inline prometheus::Histogram& MakeHistogram(prometheus::Registry& registry, const Definition& definition,
                                            const prometheus::Histogram::BucketBoundaries& bounds) {
  return prometheus::BuildHistogram().Name(definition.name).Help(definition.help).Register(registry).Add({}, bounds);
}

// From a millisecond to a quarter of an hour.
inline const prometheus::Histogram::BucketBoundaries kSeconds = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900};

}  // namespace gpipe::metrics

#endif  // GPIPE_COMMON_METRICS_COUNTED_H_
