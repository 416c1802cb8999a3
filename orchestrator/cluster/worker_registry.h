#ifndef GPIPE_ORCHESTRATOR_CLUSTER_WORKER_REGISTRY_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_WORKER_REGISTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
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
  // Of its machine, as of its last heartbeat.
  v1::DeviceUse use = {};
  // Why nobody can connect with this process; empty when that is not known. It outlives a session, as does until when
  // that counts, and how often it has been so without having been reached in between.
  std::string unreachable = {};
  absl::Time unreachable_until = {};
  int times_unreachable = 0;
  // It gets no new work, for that reason, which may be empty, until it is undrained.
  std::optional<std::string> drained = {};

  const std::string& name() const { return hello.name(); }
  bool connected() const { return channel != nullptr; }
  bool left() const { return may_leave && !connected(); }
  // Now or when it has ended what it does.
  bool may_get_work() const {
    return connected() && state != v1::Worker::STATE_UNREACHABLE && state != v1::Worker::STATE_LEAVING && !drained;
  }
};

// Who is told of all workers. Called on the loop's thread.
class WorkerListener {
 public:
  virtual ~WorkerListener() = default;
  // It is in another state, drained or undrained, or forgotten.
  virtual void OnWorkerChanged(const std::string& name) = 0;
  // It has sent a heartbeat.
  virtual void OnWorkerAlive(const std::string& name) = 0;
};

// As clients see it; and one that is drained.
void SetDrained(v1::Worker& worker, const std::string& reason);
v1::Worker DescribeWorker(const WorkerEntry& entry, absl::Time now);

bool IsCuda(const v1::Hello& hello);
// Whether a job that asks for `device` may run on this worker.
bool Suits(const WorkerEntry& worker, v1::Device device);
// The devices that such a job may run on, all its workers on one of them; the better one first.
std::vector<v1::Device> DevicesFor(v1::Device device);

// Workers of one kind run a layer in the same time: `cpu AMD EPYC, 2 threads, gpipe 0.2.0`.
std::string KindOf(const v1::Hello& hello);

// What stages may use of the worker's memory; the rest is for the runtime. 0: not known.
int64_t UsableMemory(const v1::Hello& hello);

// All workers by name, lost ones too until they return, of those at most kMaxLost. For the loop's thread.
// Entries stay where they are in memory until they are forgotten, which only happens to lost ones, in Join.
class WorkerRegistry {
 public:
  static constexpr size_t kMaxLost = 100;
  static constexpr size_t kMaxLive = 10000;

  // Null: nobody.
  void set_listener(WorkerListener* listener) { listener_ = listener; }

  // A session began; a process that was UNREACHABLE is so again. INVALID_ARGUMENT names the bad field of hello;
  // FAILED_PRECONDITION: the worker is of another version; ALREADY_EXISTS when the name's session is open;
  // RESOURCE_EXHAUSTED when there are too many.
  absl::StatusOr<WorkerEntry*> Join(const v1::Hello& hello, std::shared_ptr<WorkerChannel> channel, absl::Time now);

  // Applies the event by the transition table and logs the change. FAILED_PRECONDITION leaves it as it was.
  absl::Status Apply(WorkerEntry& worker, WorkerEvent event, std::string_view why);

  // What its heartbeat says of it.
  void Beat(WorkerEntry& worker, const v1::Heartbeat& heartbeat);

  // Makes it UNREACHABLE, unless it is lost or leaves anyway: for kUnreachable, twice as long each time, at most
  // kLongestUnreachable.
  static constexpr absl::Duration kUnreachable = absl::Seconds(30), kLongestUnreachable = absl::Minutes(5);
  void SetUnreachable(WorkerEntry& worker, std::string_view why, absl::Time now);
  // Its peers have connected with it.
  void SetReached(std::string_view name);
  // Makes workers IDLE that have been UNREACHABLE for long enough. Whether there were any.
  bool TryUnreachableAgain(absl::Time now);

  // The process of that name, now and later, gets no new work, until it is undrained. RESOURCE_EXHAUSTED: there are too
  // many such names.
  absl::Status Drain(std::string_view name, std::string_view reason);
  void Undrain(std::string_view name);
  // The reasons by name, also of workers that are not known.
  using Drained = std::map<std::string, std::string, std::less<>>;
  const Drained& drained() const { return drained_; }

  // Null when the name is not known.
  WorkerEntry* Find(std::string_view name);
  // By name.
  std::vector<WorkerEntry*> All();
  // Connected ones that suit, busy or not, by name.
  std::vector<WorkerEntry*> Connected(v1::Device device);
  // IDLE ones that suit and are not drained, by name.
  std::vector<WorkerEntry*> Idle(v1::Device device);

 private:
  void ForgetLost();

  std::map<std::string, WorkerEntry, std::less<>> workers_;
  WorkerListener* listener_ = nullptr;
  Drained drained_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_WORKER_REGISTRY_H_
