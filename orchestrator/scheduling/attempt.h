#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_ATTEMPT_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_ATTEMPT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/jobs/stored_job.h"
#include "orchestrator/scheduling/answer_collector.h"
#include "orchestrator/scheduling/asked_rounds.h"
#include "orchestrator/scheduling/clock_window.h"
#include "orchestrator/scheduling/cycle_collector.h"
#include "orchestrator/scheduling/rendezvous_relay.h"
#include "orchestrator/scheduling/stage_collector.h"
#include "orchestrator/scheduling/step_collector.h"
#include "orchestrator/scheduling/unreachable.h"

namespace gpipe::orchestrator {

class Attempt;

// Who keeps the job that an attempt runs. Called on the loop's thread.
class AttemptHost {
 public:
  virtual ~AttemptHost() = default;
  // All workers are prepared; grants begin.
  virtual void OnRunning(Attempt& attempt) = 0;
  virtual void OnStep(Attempt& attempt, const v1::StepMetrics& step, StepDetail detail) = 0;
  virtual void OnEvaluation(Attempt& attempt, const v1::EvaluationMetrics& evaluation) = 0;
  virtual void OnLossChecked(Attempt& attempt, const v1::LossChecked& losses) = 0;
  virtual void OnCycle(Attempt& attempt, const v1::CycleDone& cycle) = 0;
  // Every worker's part of one checkpoint is uploaded.
  virtual void OnCheckpoint(Attempt& attempt, const std::vector<v1::CheckpointShard>& shards) = 0;
  // All steps are done, and every worker has uploaded its part of the model, before the last evaluation; in the order
  // of workers.
  virtual void OnTrained(Attempt& attempt, const std::vector<v1::Finished>& results) = 0;
  // All workers have done a round that a client asked for.
  virtual void OnAnswer(Attempt& attempt, const v1::RoundAnswer& answer) = 0;
  // Every worker has finished, in the order of workers. Release or Abort comes next.
  virtual void OnFinished(Attempt& attempt, const std::vector<v1::Finished>& results) = 0;
  // The attempt is over; its workers have been told.
  virtual void OnFailed(Attempt& attempt, const v1::Failure& failure) = 0;
  // As OnFailed, but nothing has failed: workers ended it because this process had been stopped.
  virtual void OnInterrupted(Attempt& attempt) = 0;
  // As OnFailed, before it ran: peers could not connect with these workers. Others may do better.
  virtual void OnUnreachable(Attempt& attempt, const v1::Failure& failure,
                             const std::vector<UnreachableWorker>& workers) = 0;
};

struct AttemptSetup {
  v1::AttemptId id;
  v1::JobSpec spec;
  v1::Plan plan;
  std::vector<std::string> workers;  // By index, as in the plan.
  FileMap files;
  std::optional<CheckpointFiles> resume;
  std::optional<v1::Forecast> forecast;                    // Where its layers were measured.
  v1::Checkpoint checkpoint = v1::CHECKPOINT_UNSPECIFIED;  // What the spec says, or leaves open.
};

// One run of a job on its workers: prepares them, grants clock cycles, collects what they report, and decides what the
// first failure was. For the loop's thread.
//
// preparing -> running -> finished, until Release or Abort; or failing, while consequences are collected -> over.
// The host may keep an attempt that is over for as long as it likes; it must not destroy it inside a callback.
class Attempt {
 public:
  static constexpr absl::Duration kPrepareTimeout = absl::Seconds(300);
  // How long consequences are waited for once the cause is known.
  static constexpr absl::Duration kConsequenceTimeout = absl::Seconds(1);
  static constexpr size_t kMaxOpenCheckpoints = 1024;

  // `loop`, `cluster` and `host` must outlive the attempt.
  Attempt(EventLoop* loop, Cluster* cluster, AttemptHost* host, AttemptSetup setup);
  ~Attempt();
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;

  // Assigns the workers. REQUIRES: all are IDLE.
  void Start();

  // What a worker of this attempt says, or what becomes of it.
  void OnMessage(WorkerEntry& worker, const v1::WorkerMessage& message);
  void OnLost(WorkerEntry& worker, std::string_view why);
  void OnLeaving(WorkerEntry& worker, std::string_view reason);

  // No more grants, until Resume. What is granted is still worked off.
  void Pause();
  void Resume();
  // The same by the orchestrator's own will, beside a pause.
  void Hold(bool held);
  // Has a checkpoint written before the next training step that no worker knows of: of so many steps.
  // FAILED_PRECONDITION: there is no such step.
  absl::StatusOr<int64_t> Checkpoint();
  // The checkpoint of that step is stored.
  void OnSaved(int64_t step);
  // With client data: as AskedRounds; nothing, if the attempt is coming to its end. FAILED_PRECONDITION: it does not
  // run yet, or has no client.
  absl::Status Ask(const v1::AskedRound& round);
  void CloseRounds();

  // Ends the attempt without a callback.
  void Abort(std::string_view reason);
  void Release();
  // Fails it for a reason outside of the workers.
  void Fail(const v1::Failure& cause);

  void WatchCycles(bool wanted);

  const v1::AttemptId& id() const { return setup_.id; }
  const std::vector<std::string>& workers() const { return setup_.workers; }
  const v1::Plan& plan() const { return setup_.plan; }
  bool running() const { return phase_ == Phase::kRunning; }
  int64_t rounds_done() const { return window_.rounds_done(); }
  // By worker; of this attempt only.
  std::vector<v1::Activity> Activities() const;

 private:
  enum class Phase { kPreparing, kRunning, kFinished, kFailing, kOver };

  struct Member {
    std::string name;
    bool prepared = false;
    std::optional<v1::Finished> result = {};
    std::optional<v1::Finished> trained = {};  // Its part of the model, before the last evaluation.
    bool gone = false;                         // Lost, or left when it was done.
    std::optional<std::string> leaves = {};    // Why it wants to; it is needed for a checkpoint, or to the end.
    bool released = false;
    bool failed = false;  // Has said so.
  };

  // attempt.cc
  void SendAssignments();
  int IndexOf(std::string_view worker) const;
  void CheckBegun();
  void OnPrepared(int index);
  void OnProgress(int index, const v1::Progress& progress);
  absl::Status CollectRounds(int index, const v1::Progress& progress);
  void Distrust(int index, const absl::Status& why);
  absl::Status CollectActions(int index, const v1::Progress& progress);
  void OnCheckpointShard(int index, const v1::CheckpointShard& shard);
  void OnTrained(int index, const v1::Trained& trained);
  void OnFinished(int index, const v1::Finished& finished);
  void OnRendezvousPut(int index, const v1::RendezvousPut& put);
  void SendTo(int index, v1::OrchestratorMessage message);
  void SendGrants();
  void Answer(const v1::RoundDone& round);
  void AddPrograms(v1::Rounds& rounds, int worker, const std::vector<int>& programs) const;

  // attempt_failure.cc
  // Whether a worker may go: it has finished, and all others have received what it sent.
  bool IsDone(const Member& member) const { return member.result.has_value() && window_.all_done(); }
  void LetLeave();
  // Has a checkpoint written, after which the attempt stops. False: there is nothing to wait for; true also where the
  // job comes to its end.
  bool SaveForLeaver();
  void FailLeft(int index, std::string_view why);
  // The first of those that want to leave and are still here.
  std::optional<int> Leaver() const;
  void OnFailed(int index, const v1::Failed& failed);
  void OnReleased(int index);
  void Suspect(const v1::Failure& consequence);
  // Decides who is unreachable, as soon as all have said what they have to say.
  void JudgeReachIfAllSaid();
  void JudgeReach();
  void SetReached();
  void Conclude();
  void ConcludeIfSettled();
  void AbortAll(std::string_view reason);
  v1::Activity ActivityOf(int index) const;
  v1::Failure FailureOf(int index, std::string_view code, std::string_view what, std::string_view why) const;
  void WatchForStall();
  // Whether all who have rounds left wait for each other, as far as they have said.
  bool AllWait() const;
  std::string DescribeWaits() const;
  // How long they may: as long as the largest message takes on a slow network, and as TCP takes to try again after a
  // cut of half a lease.
  absl::Duration StallTimeout() const;
  void LogStall() const;
  void CancelTimers();

  EventLoop* const loop_;
  Cluster* const cluster_;
  AttemptHost* const host_;
  AttemptSetup setup_;  // But for the rows of its plan, which the workers get, and new programs, constant.
  const std::unique_ptr<RoundSource> source_;
  AskedRounds* const asked_;  // The same, with client data; else null.

  Phase phase_ = Phase::kPreparing;
  bool paused_ = false, held_ = false;
  bool interrupted_ = false;           // What ends it is that this process was stopped.
  int64_t saved_step_;                 // Of the newest checkpoint; that which it began with.
  std::optional<int64_t> leave_step_;  // With a worker that leaves: of the checkpoint that it stays for.
  std::vector<Member> members_;
  std::map<std::string, int, std::less<>> index_of_;  // By name.
  size_t prepared_ = 0, trained_ = 0, finished_ = 0;  // Members.
  ClockWindow window_;
  StepCollector steps_;
  CycleCollector cycles_;
  StageCollector stages_;
  AnswerCollector answers_;
  RendezvousRelay rendezvous_;
  std::map<int64_t, std::map<int, v1::CheckpointShard>> shards_;  // By step and worker.

  // The first consequence, while no cause is known; then the cause, with its consequences.
  std::optional<v1::Failure> suspect_;
  v1::Failure cause_;
  UnreachableReports reach_reports_;
  std::vector<UnreachableWorker> unreachable_;  // Those that end it.

  int64_t stall_ticks_ = -1;  // Progress of all workers at the last look.
  bool stall_logged_ = false;
  absl::Duration still_ = absl::ZeroDuration();    // For how long nothing has moved.
  absl::Duration stalled_ = absl::ZeroDuration();  // For how long all have waited for each other.
  EventLoop::TimerId deadline_timer_ = 0;          // Of preparing, then of waiting for causes or consequences.
  EventLoop::TimerId stall_timer_ = 0;
  EventLoop::TimerId begin_timer_ = 0;  // Of taking up what was assigned.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_ATTEMPT_H_
