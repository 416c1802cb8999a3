#ifndef GPIPE_ORCHESTRATOR_CLUSTER_WORKER_REGISTRY_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_WORKER_REGISTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/attempt_id.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "orchestrator/cluster/worker_channel.h"
#include "orchestrator/jobs/worker_state.h"

namespace gpipe::orchestrator {

// A worker as the orchestrator knows it.
struct WorkerEntry {
  v1::Hello hello;
  v1::Worker::State state = v1::Worker::STATE_UNSPECIFIED;
  std::shared_ptr<WorkerChannel> channel;  // Null when lost.
  absl::Time last_heard;
  // The attempt it works for or lets go of; empty when it has none.
  v1::AttemptId attempt = {};
  v1::Activity activity = {};
  // Since when it has been told to let go.
  absl::Time releasing_since = {};
  // It may go, as it asked: nobody will miss it.
  bool may_leave = false;
  // The peers of an attempt have connected with this process.
  bool was_reached = false;
  // Why nobody can connect with this process; empty when that is not known. It outlives a session.
  std::string unreachable = {};

  const std::string& name() const { return hello.name(); }
  bool connected() const { return channel != nullptr; }
  bool left() const { return may_leave && !connected(); }
};

bool IsCuda(const v1::Hello& hello);
// Whether a job that asks for `device` may run on this worker.
bool Suits(const WorkerEntry& worker, v1::Device device);
// The devices that such a job may run on, all its workers on one of them; the better one first.
std::vector<v1::Device> DevicesFor(v1::Device device);

// Workers of one kind run a layer in the same time: `cpu AMD EPYC, 2 threads, gpipe 0.1.0`.
std::string KindOf(const v1::Hello& hello);

// What stages may use of the worker's memory; the rest is for the runtime. 0: not known.
int64_t UsableMemory(const v1::Hello& hello);

// All workers by name, lost ones too until they return, of those at most kMaxLost. For the loop's thread.
// Entries stay where they are in memory until they are forgotten, which only happens to lost ones, in Join.
class WorkerRegistry {
 public:
  static constexpr size_t kMaxLost = 100;
  static constexpr size_t kMaxLive = 10000;

  // A session began; a process that was UNREACHABLE is so again. INVALID_ARGUMENT names the bad field of hello;
  // FAILED_PRECONDITION: the worker is of another version; ALREADY_EXISTS when the name's session is open;
  // RESOURCE_EXHAUSTED when there are too many.
  absl::StatusOr<WorkerEntry*> Join(const v1::Hello& hello, std::shared_ptr<WorkerChannel> channel, absl::Time now);

  // Applies the event by the transition table and logs the change. FAILED_PRECONDITION leaves it as it was.
  absl::Status Apply(WorkerEntry& worker, WorkerEvent event, std::string_view why);

  // Makes it UNREACHABLE, unless it is lost or leaves anyway.
  void SetUnreachable(WorkerEntry& worker, std::string_view why);

  // Null when the name is not known.
  WorkerEntry* Find(std::string_view name);
  // By name.
  std::vector<WorkerEntry*> All();
  // Connected ones that suit, busy or not, by name.
  std::vector<WorkerEntry*> Connected(v1::Device device);
  // IDLE ones that suit, by name.
  std::vector<WorkerEntry*> Idle(v1::Device device);

 private:
  void ForgetLost();

  std::map<std::string, WorkerEntry, std::less<>> workers_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_WORKER_REGISTRY_H_
