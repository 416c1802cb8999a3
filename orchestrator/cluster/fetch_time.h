#ifndef GPIPE_ORCHESTRATOR_CLUSTER_FETCH_TIME_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_FETCH_TIME_H_

#include "absl/time/time.h"

namespace gpipe::orchestrator {

// What a worker is given to fetch `files`, v1::ArtifactRef by path, before the time for what it does with them begins.
template <typename Files>
absl::Duration TimeToFetch(const Files& files) {
  constexpr double kSlowBytesPerSecond = 20e6;
  absl::Duration time;
  for (const auto& [path, ref] : files) {
    if (ref.shared_path().empty()) time += absl::Seconds(static_cast<double>(ref.size()) / kSlowBytesPerSecond);
  }
  return time;
}

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_FETCH_TIME_H_
