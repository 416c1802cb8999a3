#ifndef GPIPE_ORCHESTRATOR_CLUSTER_INSPECTOR_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_INSPECTOR_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/random/random.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/cluster/worker_registry.h"

namespace gpipe::orchestrator {

using LayerInfos = std::vector<v1::LayerInfo>;

// Asks workers what a model's layers are like, busy ones too. Answers are kept for a while, so that the same model
// submitted a thousand times is looked at once; one that comes too late for who asked is kept as well, for the next who
// does. For the loop's thread.
class Inspector {
 public:
  using Callback = std::function<void(absl::StatusOr<LayerInfos>)>;

  Inspector(EventLoop* loop, WorkerRegistry* registry) : loop_(loop), registry_(registry) {}

  // Calls `done` once, now or later. UNAVAILABLE: no suitable worker is connected, or it went away, or too much
  // is asked already. DEADLINE_EXCEEDED: no answer in time, which begins when the worker has had time to fetch the
  // request's files; asking again then goes to a worker that is not late, or waits for the same answer.
  // INVALID_ARGUMENT: the model or its data do not fit, by field path. `request.id` is set here.
  void Inspect(v1::Inspect request, v1::Device device, absl::Duration timeout, Callback done);

  // The same with a measurement (profile_micro_batch), by an IDLE worker of the kind; it is not remembered here.
  void Measure(v1::Inspect request, const std::string& kind, absl::Duration timeout, Callback done);

  void OnInspected(const WorkerEntry& worker, const v1::Inspected& answer);
  void OnLost(const WorkerEntry& worker);

 private:
  static constexpr size_t kMaxKnown = 64;
  static constexpr size_t kMaxPending = 256;
  static constexpr size_t kMaxLate = 64;

  struct Pending {
    std::string worker;
    std::string key;  // What is remembered under; empty when it is not.
    int layers = 0;
    EventLoop::TimerId timer = 0;
    std::vector<Callback> done;  // Of all who asked the same meanwhile; empty when the answer is late.

    bool late() const { return done.empty(); }
  };

  bool JoinPending(const std::string& key, Callback& done);
  // When that worker has been asked the same and is late with its answer, waits for this answer anew.
  bool JoinLate(const std::string& worker, const std::string& key, absl::Duration timeout, Callback& done);
  EventLoop::TimerId GiveUpAfter(absl::Duration timeout, int64_t id, const std::string& worker);
  void GiveUp(int64_t id, const absl::Status& why);
  void ForgetOldestLate();
  WorkerEntry* Choose(v1::Device device);
  // The first of those that have the fewest models to look at; null when there are none.
  WorkerEntry* LeastAsked(const std::vector<WorkerEntry*>& workers) const;
  void Ask(const WorkerEntry& worker, v1::Inspect request, std::string key, absl::Duration timeout, Callback done);
  void Finish(int64_t id, const absl::StatusOr<LayerInfos>& result);
  void FinishAll(const std::string& key, const LayerInfos& layers);
  void Remember(const std::string& key, const LayerInfos& layers);

  EventLoop* const loop_;
  WorkerRegistry* const registry_;
  // Not from 1: a worker may still answer what an earlier orchestrator asked.
  int64_t next_id_ = absl::Uniform<int64_t>(absl::BitGen(), 1, int64_t{1} << 62);
  std::map<int64_t, Pending> pending_;
  std::map<std::string, LayerInfos> known_;
  std::deque<std::string> known_order_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_INSPECTOR_H_
