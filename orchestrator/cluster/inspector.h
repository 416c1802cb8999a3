#ifndef GPIPE_ORCHESTRATOR_CLUSTER_INSPECTOR_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_INSPECTOR_H_

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/cluster/questions.h"
#include "orchestrator/cluster/worker_registry.h"

namespace gpipe::orchestrator {

using LayerInfos = std::vector<v1::LayerInfo>;

// Asks workers what a model's layers are like, busy ones too. Answers are kept for a while, so that the same model
// submitted a thousand times is looked at once; one that comes too late for who asked is kept as well, for the next who
// does. For the loop's thread.
class Inspector {
 public:
  using Callback = Questions<LayerInfos>::Callback;

  // Both must outlive the inspector.
  Inspector(EventLoop* loop, WorkerRegistry* registry) : registry_(registry), questions_(loop, registry, "the model") {}

  // Calls `done` once, now or later. UNAVAILABLE: no suitable worker is connected, or it went away, or too much
  // is asked already. DEADLINE_EXCEEDED: no answer in time, which begins when the worker has had time to fetch the
  // request's files; asking again then goes to a worker that is not late, or waits for the same answer.
  // INVALID_ARGUMENT: the model or its data do not fit, by field path. `request.id` is set here.
  void Inspect(v1::Inspect request, v1::Device device, absl::Duration timeout, Callback done);

  // The same with a measurement (profile_micro_batch), by an IDLE worker of the kind; it is not remembered here.
  void Measure(v1::Inspect request, const std::string& kind, absl::Duration timeout, Callback done);

  // Asks anew about every model: a worker could not run one as another worker had described it.
  void ForgetAnswers();

  void OnInspected(const WorkerEntry& worker, const v1::Inspected& answer);
  void OnLost(const WorkerEntry& worker) { questions_.OnLost(worker); }

 private:
  static constexpr size_t kMaxKnown = 64;

  void Ask(const WorkerEntry& worker, v1::Inspect request, std::string key, absl::Duration timeout, Callback done);
  void Remember(const std::string& key, const LayerInfos& layers);

  WorkerRegistry* const registry_;
  Questions<LayerInfos> questions_;  // The key is what is remembered under; none when it is not.
  std::map<std::string, LayerInfos> known_;
  std::deque<std::string> known_order_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_INSPECTOR_H_
