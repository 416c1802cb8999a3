#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_PROFILER_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_PROFILER_H_

#include <string>

#include "absl/time/time.h"
#include "orchestrator/cluster/inspector.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {

// What a model's layers cost on each kind of worker: measured once, on an idle worker of the kind, then taken from the
// store. For the loop's thread.
class Profiler {
 public:
  static constexpr absl::Duration kTimeout = absl::Seconds(120);

  // Both must outlive the profiler.
  Profiler(Inspector* inspector, Store* store) : inspector_(inspector), store_(store) {}

  // Calls `done` once, now or later; errors are those of Inspector::Measure. `purpose` is for the log. A profile of
  // another number of layers than `layers` is not used: it is of an older program.
  // REQUIRES: request.profile_micro_batch is set.
  void Measure(v1::Inspect request, const std::string& kind, size_t layers, const std::string& purpose,
               Inspector::Callback done);

 private:
  std::optional<LayerInfos> Remembered(const std::string& fingerprint, const std::string& kind, size_t layers);
  void Remember(const std::string& fingerprint, const std::string& kind, const LayerInfos& layers);

  Inspector* const inspector_;
  Store* const store_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_PROFILER_H_
