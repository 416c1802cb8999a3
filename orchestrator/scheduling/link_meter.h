#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_LINK_METER_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_LINK_METER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/rendezvous_relay.h"
#include "orchestrator/scheduling/unreachable.h"

namespace gpipe::orchestrator {

// Of each worker of a job with the next one.
using Links = std::vector<v1::LinkSpeed>;

// Has workers measure the links between them, in small attempts of their own, so that they are given to nobody else
// meanwhile. What is known of two workers stays known while both processes are there. For the loop's thread.
class LinkMeter {
 public:
  static constexpr absl::Duration kTimeout = absl::Seconds(30);

  using Callback = std::function<void(const absl::Status& measured)>;

  // Both must outlive the meter.
  LinkMeter(EventLoop* loop, Cluster* cluster) : loop_(loop), cluster_(cluster) {}
  LinkMeter(const LinkMeter&) = delete;
  LinkMeter& operator=(const LinkMeter&) = delete;

  // The links between neighbours in this order; nullopt when not all of them are known.
  std::optional<Links> Find(const std::vector<v1::Hello>& workers) const;

  // Measures them for a job, whose id makes the attempt's. Calls `done` once, later, when the last of the workers lets
  // go or is gone: OK when all links are known; UNAVAILABLE: a worker went away, or lost a peer; DEADLINE_EXCEEDED: not
  // measured within kTimeout; other errors are a worker's own. REQUIRES: all are IDLE; two at least.
  void Measure(std::string_view job, const std::vector<WorkerEntry*>& workers, Callback done);

  // Whether the attempt is one of these. The rest is as of ClusterListener, for workers that have such an attempt.
  bool Has(const v1::AttemptId& attempt) const;
  void OnMessage(const WorkerEntry& worker, const v1::WorkerMessage& message);
  void OnLost(const WorkerEntry& worker, std::string_view why);
  void OnLeaving(WorkerEntry& worker, std::string_view reason);

 private:
  using Pair = std::pair<std::string, std::string>;  // Incarnations, in the order of the workers.

  struct Measurement {
    v1::AttemptId id;
    std::vector<std::string> workers;
    std::vector<std::string> incarnations;
    RendezvousRelay rendezvous;
    Callback done;
    std::set<int> held;                       // Workers that have not let go yet.
    std::map<int, absl::Status> failed = {};  // By worker: failures that are consequences, or name a peer.
    UnreachableReports reach_reports = {};
    std::map<int, v1::LinksMeasured> measured;  // By worker.
    std::optional<absl::Status> result;         // Set when it ended, and the workers were told to let go.
    EventLoop::TimerId deadline = 0;
  };

  Measurement& Of(const WorkerEntry& worker) { return running_.at(worker.attempt.attempt()); }
  static int IndexOf(const Measurement& measurement, const WorkerEntry& worker);
  void SendTo(const std::string& worker, v1::OrchestratorMessage message);
  void OnMeasured(Measurement& measurement, int index, const v1::LinksMeasured& measured);
  void OnFailed(Measurement& measurement, int index, const v1::Failed& failed);
  // Ends it for that failure, or for what the workers say of each other.
  void Conclude(Measurement& measurement, const absl::Status& why);
  void OnLate(int number);
  void OnGone(Measurement& measurement, int index, const absl::Status& why);
  void End(Measurement& measurement, const absl::Status& result);
  absl::Status Remember(const Measurement& measurement);
  void ForgetGone();

  EventLoop* const loop_;
  Cluster* const cluster_;
  int next_ = 1;
  std::map<int, Measurement> running_;  // By number of attempt.
  std::map<Pair, v1::LinkSpeed> known_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_LINK_METER_H_
