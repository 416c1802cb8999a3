#ifndef GPIPE_ORCHESTRATOR_CLUSTER_SURVEYOR_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_SURVEYOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/random/random.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/cluster/worker_registry.h"

namespace gpipe::orchestrator {

// Asks a worker what is under shared paths, which this process need not see. Nothing is remembered: files change. For
// the loop's thread.
class Surveyor {
 public:
  using Callback = std::function<void(absl::StatusOr<v1::Surveyed>)>;

  // Both must outlive the surveyor.
  Surveyor(EventLoop* loop, WorkerRegistry* registry) : loop_(loop), registry_(registry) {}

  // Calls `done` once, now or later. UNAVAILABLE: no suitable worker is connected, or it went away, or too much is
  // asked already. DEADLINE_EXCEEDED: no answer in time. INVALID_ARGUMENT, by field path: files are not there, or not
  // good. `request.id` is set here.
  void Survey(v1::Survey request, v1::Device device, absl::Duration timeout, Callback done);

  void OnSurveyed(const WorkerEntry& worker, const v1::Surveyed& answer);
  void OnLost(const WorkerEntry& worker);

 private:
  static constexpr size_t kMaxPending = 256;

  struct Pending {
    std::string worker;
    EventLoop::TimerId timer = 0;
    Callback done;
  };

  WorkerEntry* Choose(v1::Device device);
  void Finish(int64_t id, absl::StatusOr<v1::Surveyed> result);

  EventLoop* const loop_;
  WorkerRegistry* const registry_;
  // Not from 1: a worker may still answer what an earlier orchestrator asked.
  int64_t next_id_ = absl::Uniform<int64_t>(absl::BitGen(), 1, int64_t{1} << 62);
  std::map<int64_t, Pending> pending_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_SURVEYOR_H_
