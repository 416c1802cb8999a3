#ifndef GPIPE_TESTS_UNIT_COMMON_METRICS_DOCUMENT_H_
#define GPIPE_TESTS_UNIT_COMMON_METRICS_DOCUMENT_H_

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/metrics/definition.h"
#include "tests/unit/paths.h"

namespace gpipe {

// What docs/metrics.md says under these headings, and what a table of definitions says, each as `name type
// label,label`.
inline std::set<std::string> DocumentedMetrics(const std::set<std::string>& headings) {
  std::ifstream file(SourceFolder() / "docs/metrics.md");
  std::set<std::string> found;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("## ", 0) == 0) inside = headings.contains(line.substr(3));
    if (!inside || line.rfind("| `", 0) != 0) continue;
    std::erase(line, '`');
    std::vector<std::string> cells = absl::StrSplit(line, '|');
    for (std::string& cell : cells) cell = std::string(absl::StripAsciiWhitespace(cell));
    std::erase(cells[3], ' ');
    found.insert(absl::StrCat(cells[1], " ", cells[2], " ", cells[3]));
  }
  return found;
}

inline std::set<std::string> DefinedMetrics(const std::vector<metrics::Definition>& definitions) {
  std::set<std::string> found;
  for (const metrics::Definition& definition : definitions) {
    const char* type = definition.type == prometheus::MetricType::Counter     ? "counter"
                       : definition.type == prometheus::MetricType::Histogram ? "histogram"
                                                                              : "gauge";
    const std::string labels = absl::StrJoin(definition.labels, ",");
    found.insert(absl::StrCat(definition.name, " ", type, " ", labels.empty() ? "-" : labels));
  }
  return found;
}

}  // namespace gpipe

#endif  // GPIPE_TESTS_UNIT_COMMON_METRICS_DOCUMENT_H_
