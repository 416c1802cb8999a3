#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_SCHEDULER_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_SCHEDULER_H_

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/shard_names.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/cluster/background.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/attempt.h"
#include "orchestrator/scheduling/housekeeper.h"
#include "orchestrator/scheduling/job_book.h"
#include "orchestrator/scheduling/link_meter.h"
#include "orchestrator/scheduling/plan_maker.h"
#include "orchestrator/scheduling/profiler.h"
#include "orchestrator/scheduling/spec_checker.h"

namespace gpipe::orchestrator {

// Brings queued jobs, first come first, onto idle workers, and sees their attempts to the end. For the loop's thread.
// A job whose workers are busy holds back those behind it that want workers of the same kind; one that needs more
// workers than are connected holds back nobody.
class Scheduler final : public ClusterListener, public AttemptHost {
 public:
  static constexpr absl::Duration kRetry = absl::Seconds(1);
  static constexpr int kMaxUnansweredChecks = 3;
  // Jobs of the queue that one look goes through, and those that are told why they wait.
  static constexpr size_t kMaxLookedAt = 256, kMaxExplained = 16;
  // Of measuring the links between a job's workers, before it goes on without them.
  static constexpr int kMaxLinkTries = 3;
  // Checkpoints of a job that wait to be joined, before it goes on: more would fill the disk with parts.
  static constexpr int kMaxJoining = 4;
  // How long a job of client data has its workers before somebody asks for a round.
  static constexpr absl::Duration kClientPatience = absl::Seconds(60);

  struct Parts {
    EventLoop* loop;
    Cluster* cluster;
    JobBook* book;
    SpecChecker* checker;
    Profiler* profiler;
    PlanMaker* planner;
    ArtifactStore* artifacts;
    Housekeeper* housekeeper;
    Background* merges;                                     // For joining what workers handed over.
    int64_t max_shard_bytes = safetensors::kMaxShardBytes;  // Of a model or checkpoint in one file.
  };
  // All parts must outlive the scheduler. It makes itself the cluster's listener.
  explicit Scheduler(const Parts& parts);

  // Looks at the queue, after what is under way.
  void ScheduleSoon();

  // What clients ask of a job. NOT_FOUND; FAILED_PRECONDITION names the state that does not allow it.
  absl::StatusOr<v1::Job> Cancel(std::string_view id);
  absl::StatusOr<v1::Job> Pause(std::string_view id);
  absl::StatusOr<v1::Job> Resume(std::string_view id);
  // As CheckpointJob.
  absl::StatusOr<v1::CheckpointJobResponse> Checkpoint(std::string_view id);

  // The rounds that a client asks for, of a job with client data. A job has one client, which keeps the queue.
  // Its first answer is `opened`, when the job runs. NOT_FOUND; FAILED_PRECONDITION: the job is over, is none for
  // clients, or has one.
  absl::Status OpenRounds(std::string_view id, const std::shared_ptr<AnswerQueue>& client);
  // As AskedRounds.
  absl::Status Ask(std::string_view id, const std::shared_ptr<AnswerQueue>& client, const v1::AskedRound& round);
  // It asks for no more: the job comes to its end.
  void CloseRounds(std::string_view id, const std::shared_ptr<AnswerQueue>& client);
  // It is gone: the job is cancelled, unless it was coming to its end.
  void LoseClient(std::string_view id, const std::shared_ptr<AnswerQueue>& client);

  // While there is a reason, nothing is placed, and what runs stays at the end of the clock cycles that it was granted.
  // Empty: it goes on.
  void Hold(const std::string& why);

  // Places nothing any more. Attempts that run are aborted; their jobs stay as they are stored, and go on after the
  // next start.
  void Shutdown(std::string_view reason);

  const LinkMeter& links() const { return links_; }

  // ClusterListener
  void OnAttemptMessage(WorkerEntry& worker, const v1::WorkerMessage& message) override;
  void OnActivity(WorkerEntry& worker) override;
  void OnWorkerLost(WorkerEntry& worker, std::string_view why) override;
  void OnWorkerLeaving(WorkerEntry& worker, std::string_view reason) override;
  void OnWorkersChanged() override { ScheduleSoon(); }

  // AttemptHost
  void OnRunning(Attempt& attempt) override;
  void OnStep(Attempt& attempt, const v1::StepMetrics& step, StepDetail detail) override;
  void OnEvaluation(Attempt& attempt, const v1::EvaluationMetrics& evaluation) override;
  void OnLossChecked(Attempt& attempt, const v1::LossChecked& losses) override;
  void OnCycle(Attempt& attempt, const v1::CycleDone& cycle) override;
  void OnCheckpoint(Attempt& attempt, const std::vector<v1::CheckpointShard>& shards) override;
  void OnAnswer(Attempt& attempt, const v1::RoundAnswer& answer) override;
  void OnTrained(Attempt& attempt, const std::vector<v1::Finished>& results) override;
  void OnFinished(Attempt& attempt, const std::vector<v1::Finished>& results) override;
  void OnFailed(Attempt& attempt, const v1::Failure& failure) override;
  void OnInterrupted(Attempt& attempt) override;
  void OnUnreachable(Attempt& attempt, const v1::Failure& failure,
                     const std::vector<UnreachableWorker>& workers) override;

 private:
  struct Slots {
    std::vector<WorkerEntry*> workers;
    Links links;  // Empty: not known.
  };

  // placement.cc
  bool TryQueue();
  bool TryPlace(LiveJob& job, Slots& slots);
  Slots FindSlots(const v1::JobSpec& spec, const std::set<v1::Device>& reserved);
  // Suitable workers that may get work, busy or not, on the kind of device that has most of them.
  int CountConnected(const v1::JobSpec& spec);
  // `; w1 is unreachable`, of those that the job could have otherwise.
  std::string DescribeUnfit(const v1::JobSpec& spec);
  bool LacksWorkers(const LiveJob& job);
  void ExplainLack(LiveJob& job);
  void ExplainWait(LiveJob& job, const LiveJob* ahead);
  void BeginCheck(LiveJob& job);
  void OnChecked(const std::string& id, absl::StatusOr<CheckedSpec> checked);
  void BeginMeasuring(LiveJob& job, const std::string& kind);
  void OnMeasured(const std::string& id, const std::string& kind, absl::StatusOr<LayerInfos> layers);
  bool FindLinks(LiveJob& job, Slots& slots);
  void BeginMeasuringLinks(LiveJob& job, const Slots& slots);
  void OnLinksMeasured(const std::string& id, const absl::Status& measured);
  void OnIncomplete(LiveJob& job);
  void RetryLater();
  // Not yet the time for it to restart; then the queue is looked at again.
  bool IsEarly(const LiveJob& job);
  // Has its plan made, unless something fails at once.
  void Place(LiveJob& job, const Slots& slots);
  // All of an attempt but its plan.
  absl::StatusOr<AttemptSetup> Prepare(LiveJob& job, const Slots& slots);
  void OnPlanned(AttemptSetup setup, const std::vector<v1::Hello>& hosts, absl::StatusOr<MadePlan> made);
  bool AreIdle(const std::vector<v1::Hello>& hosts) const;
  void Start(LiveJob& job, AttemptSetup setup);
  void FillJob(LiveJob& job, const AttemptSetup& setup);

  // scheduler_control.cc
  absl::StatusOr<LiveJob*> FindForClient(std::string_view id, JobEvent event);

  // scheduler_rounds.cc
  void AwaitClient(LiveJob& job);

  // scheduler.cc
  LiveJob* JobOf(const v1::AttemptId& attempt);
  absl::Status Apply(LiveJob& job, JobEvent event, std::string_view actor, std::string_view message);
  void Fail(LiveJob& job, const v1::Failure& failure);
  // After an attempt that ran, or was about to.
  void RestartOrFail(LiveJob& job, v1::Failure failure);
  void Requeue(LiveJob& job, std::string_view why);
  void AfterModel(LiveJob& job, const Attempt& attempt, std::function<void(LiveJob&)> end);
  void LetLeave(const LiveJob& job);
  // Of rounds of some time ago.
  void DropRoundFiles(LiveJob& job);
  void DropParts(const LiveJob& job);
  void RemoveDamaged(const LiveJob& job);
  // Grants cycles, or does not, as all reasons to hold the job say.
  void UpdateHold(LiveJob& job);
  // `work`, a function of the artifacts, in the background; `then`, a function of its result, on the loop. False: too
  // much waits there already, and the attempt has failed.
  template <typename Work, typename Then>
  bool Merge(Attempt& attempt, Work work, Then then);
  void OnAssembled(const v1::AttemptId& attempt, int64_t keep, absl::StatusOr<CheckpointFiles> files);
  void OnModel(const v1::AttemptId& attempt, const absl::StatusOr<std::vector<v1::ResultFile>>& model);
  void OnResults(const v1::AttemptId& attempt, absl::StatusOr<std::vector<v1::ResultFile>> results);

  EventLoop* const loop_;
  Cluster* const cluster_;
  JobBook* const book_;
  SpecChecker* const checker_;
  Profiler* const profiler_;
  PlanMaker* const planner_;
  ArtifactStore* const artifacts_;
  Housekeeper* const housekeeper_;
  Background* const merges_;
  const int64_t max_shard_bytes_;
  LinkMeter links_;
  std::string held_;  // Why it is held; empty when it is not.
  bool scheduled_ = false;
  absl::Time next_restart_ = absl::InfiniteFuture();  // For which there is a timer.
  bool closed_ = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_SCHEDULER_H_
