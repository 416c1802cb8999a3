#include "common/metrics/samples.h"

#include <utility>

namespace gpipe::metrics {

void Samples::Add(const Definition& definition, double value, const std::vector<std::string>& labels) {
  prometheus::MetricFamily& family = families_[definition.name];
  family.name = definition.name;
  family.help = definition.help;
  family.type = definition.type;
  prometheus::ClientMetric& metric = family.metric.emplace_back();
  for (size_t i = 0; i < definition.labels.size(); ++i) metric.label.push_back({definition.labels[i], labels.at(i)});
  (definition.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
}

std::vector<prometheus::MetricFamily> Samples::Take() {
  std::vector<prometheus::MetricFamily> families;
  for (auto& [name, family] : std::exchange(families_, {})) families.push_back(std::move(family));
  return families;
}

}  // namespace gpipe::metrics
