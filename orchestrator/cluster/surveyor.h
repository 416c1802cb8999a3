#ifndef GPIPE_ORCHESTRATOR_CLUSTER_SURVEYOR_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_SURVEYOR_H_

#include "absl/time/time.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/cluster/questions.h"
#include "orchestrator/cluster/worker_registry.h"

namespace gpipe::orchestrator {

// Asks a worker what is under shared paths, which this process need not see. Nothing is remembered: files change. For
// the loop's thread.
class Surveyor {
 public:
  using Callback = Questions<v1::Surveyed>::Callback;

  // Both must outlive the surveyor.
  Surveyor(EventLoop* loop, WorkerRegistry* registry) : questions_(loop, registry, "shared files") {}

  // Calls `done` once, now or later. UNAVAILABLE: no suitable worker is connected, or it went away, or too much is
  // asked already. DEADLINE_EXCEEDED: no answer in time. INVALID_ARGUMENT, by field path: files are not there, or not
  // good. `request.id` is set here.
  void Survey(v1::Survey request, v1::Device device, absl::Duration timeout, Callback done);

  void OnSurveyed(const WorkerEntry& worker, const v1::Surveyed& answer);
  void OnLost(const WorkerEntry& worker) { questions_.OnLost(worker); }

 private:
  Questions<v1::Surveyed> questions_;  // Without keys.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_SURVEYOR_H_
