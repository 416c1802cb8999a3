#ifndef GPIPE_COMMON_METRICS_PROCESS_H_
#define GPIPE_COMMON_METRICS_PROCESS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/metrics/definition.h"
#include "common/metrics/samples.h"

namespace gpipe::metrics {

// What the system says of this process, now; a part that cannot be read is 0.
struct ProcessFacts {
  double cpu_seconds = 0;
  int64_t resident_bytes = 0;
  int64_t virtual_bytes = 0;
  int64_t open_files = 0;
  int64_t most_files = 0;
  absl::Time started;
  std::vector<std::string> threads;  // Their names.
};
ProcessFacts ReadProcess();

// The metrics about the process itself, under the names that all Prometheus clients use, and gpipe_build_info.
const std::vector<Definition>& ProcessDefinitions();
void AddProcess(const ProcessFacts& facts, Samples& samples);

}  // namespace gpipe::metrics

#endif  // GPIPE_COMMON_METRICS_PROCESS_H_
