#ifndef GPIPE_ORCHESTRATOR_CLUSTER_CLUSTER_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_CLUSTER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/cluster/inspector.h"
#include "orchestrator/cluster/surveyor.h"
#include "orchestrator/cluster/worker_channel.h"
#include "orchestrator/cluster/worker_registry.h"

namespace gpipe::orchestrator {

// Who schedules jobs onto the workers. Called on the loop's thread.
class ClusterListener {
 public:
  virtual ~ClusterListener() = default;
  // A message that carries the worker's current attempt.
  virtual void OnAttemptMessage(WorkerEntry& worker, const v1::WorkerMessage& message) = 0;
  // worker.activity, which is of its current attempt, is new.
  virtual void OnActivity(WorkerEntry& /*worker*/) {}
  // It was working for worker.attempt and is LOST; `why` as in "connection closed".
  virtual void OnWorkerLost(WorkerEntry& worker, std::string_view why) = 0;
  // It was working for worker.attempt and is LEAVING. GrantLeave lets it go.
  virtual void OnWorkerLeaving(WorkerEntry& worker, std::string_view reason) = 0;
  // A worker joined or became idle.
  virtual void OnWorkersChanged() = 0;
};

// The workers and their sessions: hello, heartbeats, leases, who has which attempt. For the loop's thread.
class Cluster {
 public:
  using SessionId = uint64_t;

  struct Options {
    absl::Duration heartbeat = absl::Seconds(1);
    absl::Duration lease = absl::Seconds(5);
  };

  // `loop` must outlive the cluster.
  Cluster(EventLoop* loop, const Options& options);
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  void set_listener(ClusterListener* listener) { listener_ = listener; }
  const Options& options() const { return options_; }
  WorkerRegistry& registry() { return registry_; }
  Inspector& inspector() { return inspector_; }
  Surveyor& surveyor() { return surveyor_; }

  // What happens on the sessions. Ids are never used again; messages of a session that ended are ignored.
  void OnOpened(SessionId id, std::shared_ptr<WorkerChannel> channel);
  void OnMessage(SessionId id, const v1::WorkerMessage& message);
  void OnEnded(SessionId id);

  // Sends once the batch is stored; to nobody when the worker is lost.
  void Send(const WorkerEntry& worker, v1::OrchestratorMessage message);

  // Gives it an attempt and makes it ASSIGNED. REQUIRES: IDLE.
  void Assign(WorkerEntry& worker, v1::Assignment assignment);
  void Assign(WorkerEntry& worker, const v1::MeasureLinks& request);
  // Ends the worker's part in `attempt`; nothing if it has another one or none.
  void Abort(WorkerEntry& worker, const v1::AttemptId& attempt, std::string_view reason);
  void Release(WorkerEntry& worker, const v1::AttemptId& attempt);
  // As in the registry; and workers that may get work again are looked for some.
  absl::Status Drain(std::string_view name, std::string_view reason) { return registry_.Drain(name, reason); }
  void Undrain(std::string_view name);
  // REQUIRES: LEAVING.
  void GrantLeave(WorkerEntry& worker);

  // Whether this process had been stopped (SIGSTOP, a suspended machine) for longer than half a lease, and has gone on
  // less than a lease ago: workers whose sessions end now may have ended them because nobody answered.
  bool JustWoke() const { return loop_->Now() - woke_ < options_.lease; }

  // Ends all sessions, present and future, with `reason`, once what was sent is out.
  void Shutdown(const absl::Status& reason);

 private:
  struct Session {
    std::shared_ptr<WorkerChannel> channel;
    std::string worker;  // Empty before Hello.
    absl::Time opened;
  };

  void OnHello(Session& session, v1::Hello hello);
  void Distrust(WorkerEntry& worker, const absl::Status& why);
  void OnHeartbeat(WorkerEntry& worker, const v1::Heartbeat& heartbeat);
  void OnLeaving(WorkerEntry& worker, const v1::Leaving& leaving);
  void OnAttemptMessage(WorkerEntry& worker, const v1::WorkerMessage& message);
  void OnReleased(WorkerEntry& worker);
  void Refuse(Session& session, const absl::Status& why);
  void Lose(WorkerEntry& worker, std::string_view why);
  void BeginAttempt(WorkerEntry& worker, const v1::AttemptId& attempt, v1::OrchestratorMessage message);
  void BeginRelease(WorkerEntry& worker, WorkerEvent event, std::string_view why);
  void Sweep();
  void ScheduleSweep();
  // Keeps when this process went on, if the next sweep is so late that it must have been stopped.
  void NoteIfStopped();
  void CheckLease(WorkerEntry& worker);

  EventLoop* const loop_;
  const Options options_;
  WorkerRegistry registry_;
  Inspector inspector_;
  Surveyor surveyor_;
  ClusterListener* listener_ = nullptr;
  std::map<SessionId, Session> sessions_;
  absl::Time sweep_due_ = absl::InfiniteFuture();
  absl::Time woke_ = absl::InfinitePast();
  absl::Status closed_;  // Non-OK after Shutdown.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_CLUSTER_H_
