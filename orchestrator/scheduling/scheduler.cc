#include "orchestrator/scheduling/scheduler.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/background_priority.h"
#include "common/logging.h"
#include "common/spec/client_data.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "common/timestamp.h"
#include "orchestrator/artifacts/checkpoint_assembler.h"
#include "orchestrator/planning/balance.h"
#include "orchestrator/scheduling/failure.h"
#include "orchestrator/scheduling/loss_judgement.h"
#include "orchestrator/scheduling/restart.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

v1::ResultFile Result(std::string_view path, const v1::ArtifactRef& artifact) {
  v1::ResultFile file;
  file.set_path(std::string(path));
  *file.mutable_artifact() = artifact;
  return file;
}

// In the background: the model's files out of the workers' parts, and the outputs as the last stage's worker wrote
// them.
absl::StatusOr<std::vector<v1::ResultFile>> JoinResults(ArtifactStore& artifacts, const v1::AttemptId& attempt,
                                                        const std::vector<v1::Finished>& finished,
                                                        int64_t max_shard_bytes) {
  std::vector<v1::ResultFile> results;
  std::vector<v1::ArtifactRef> parts;
  for (const v1::Finished& worker : finished) {
    parts.insert(parts.end(), worker.model().begin(), worker.model().end());
    if (!worker.has_outputs()) continue;
    GPIPE_RETURN_IF_ERROR(artifacts.Path(worker.outputs()).status());
    results.push_back(Result("outputs.safetensors", worker.outputs()));
  }
  if (parts.empty()) return results;
  GPIPE_ASSIGN_OR_RETURN(const FileMap files, AssembleModel(artifacts, attempt, parts, max_shard_bytes));
  for (const auto& [name, ref] : files) results.push_back(Result(name, ref));
  return results;
}

// Leaves the processor to all other threads of the machine, workers say, that have something to do. (A thread cannot
// take back that it does.)
absl::StatusOr<CheckpointFiles> AssembleYielding(ArtifactStore& artifacts, const v1::AttemptId& attempt,
                                                 const std::vector<v1::CheckpointShard>& shards,
                                                 int64_t max_shard_bytes) {
  absl::StatusOr<CheckpointFiles> files;
  std::thread([&] {
    SetThreadName("merge");
    RunInBackground();
    files = AssembleCheckpoint(artifacts, attempt, shards, max_shard_bytes);
  }).join();
  return files;
}

// A worker fails so, too, that gets a plan which does not fit the model: what another one has said of the model is then
// not to be believed by the next job.
bool MayBeMisdescribed(const v1::Failure& failure) {
  return !failure.worker().empty() && (failure.code() == "INVALID_SPEC" || failure.code() == "INTERNAL");
}

absl::Status TooMuch() { return absl::ResourceExhaustedError("too many models and checkpoints wait to be joined"); }

}  // namespace

Scheduler::Scheduler(const Parts& parts)
    : loop_(parts.loop),
      cluster_(parts.cluster),
      book_(parts.book),
      checker_(parts.checker),
      profiler_(parts.profiler),
      planner_(parts.planner),
      artifacts_(parts.artifacts),
      housekeeper_(parts.housekeeper),
      merges_(parts.merges),
      max_shard_bytes_(parts.max_shard_bytes),
      links_(parts.loop, parts.cluster) {
  cluster_->set_listener(this);
}

// Null when the attempt is not the job's current one.
LiveJob* Scheduler::JobOf(const v1::AttemptId& attempt) {
  LiveJob* job = book_->Find(attempt.job());
  return job != nullptr && job->attempt != nullptr && SameAttempt(job->attempt->id(), attempt) ? job : nullptr;
}

void Scheduler::OnAttemptMessage(WorkerEntry& worker, const v1::WorkerMessage& message) {
  if (links_.Has(worker.attempt)) return links_.OnMessage(worker, message);
  LiveJob* job = JobOf(worker.attempt);
  if (job == nullptr) return;
  if (message.has_log()) return book_->AddLines(*job, worker.name(), message.log());
  job->attempt->OnMessage(worker, message);
}

// Of what a worker computes its steps tell.
void Scheduler::OnActivity(WorkerEntry& worker) {
  LiveJob* job = JobOf(worker.attempt);
  if (job == nullptr || worker.activity.bytes_done() == 0) return;
  const auto& workers = job->job().workers();
  const auto found = std::find(workers.begin(), workers.end(), worker.name());
  if (found == workers.end()) return;
  v1::WorkerActivity activity;
  activity.set_worker(static_cast<int>(found - workers.begin()));
  *activity.mutable_activity() = worker.activity;
  book_->AnnounceActivity(*job, std::move(activity));
}

void Scheduler::OnWorkerLost(WorkerEntry& worker, std::string_view why) {
  if (links_.Has(worker.attempt)) return links_.OnLost(worker, why);
  if (LiveJob* job = JobOf(worker.attempt); job != nullptr) job->attempt->OnLost(worker, why);
}

void Scheduler::OnWorkerLeaving(WorkerEntry& worker, std::string_view reason) {
  if (links_.Has(worker.attempt)) return links_.OnLeaving(worker, reason);
  LiveJob* job = JobOf(worker.attempt);
  if (job == nullptr) return cluster_->GrantLeave(worker);
  job->attempt->OnLeaving(worker, reason);
}

void Scheduler::OnRunning(Attempt& attempt) {
  LiveJob* job = JobOf(attempt.id());
  if (job == nullptr) return;
  Apply(*job, JobEvent::kPrepared, "orchestrator", "all workers are prepared").IgnoreError();
  AwaitClient(*job);
  if (!job->job().paused()) return;
  attempt.Pause();
  Apply(*job, JobEvent::kPause, "orchestrator", "still paused").IgnoreError();
}

void Scheduler::OnStep(Attempt& attempt, const v1::StepMetrics& step, StepDetail detail) {
  LiveJob* job = JobOf(attempt.id());
  if (job == nullptr) return;
  job->job().set_rounds_done(RoundsDone(*job));
  if (step.has_loss() || step.has_lr()) job->job().set_steps_done(step.step());
  book_->AddStep(*job, step, std::move(detail));
}

void Scheduler::OnEvaluation(Attempt& attempt, const v1::EvaluationMetrics& evaluation) {
  if (LiveJob* job = JobOf(attempt.id()); job != nullptr) book_->AddEvaluation(*job, evaluation);
}

void Scheduler::OnLossChecked(Attempt& attempt, const v1::LossChecked& losses) {
  LiveJob* job = JobOf(attempt.id());
  if (const std::string finding = JudgeLoss(losses); job != nullptr && !finding.empty()) {
    book_->Warn(*job, finding);
  }
}

void Scheduler::OnCycle(Attempt& attempt, const v1::CycleDone& cycle) {
  if (LiveJob* job = JobOf(attempt.id()); job != nullptr) book_->AnnounceCycle(*job, cycle);
}

// The work may run when this object is gone; what it posts then is not run any more.
template <typename Work, typename Then>
bool Scheduler::Merge(Attempt& attempt, Work work, Then then) {
  const bool taken = merges_->Run([loop = loop_, artifacts = artifacts_, work = std::move(work), then] {
    loop->Post([then, merged = work(*artifacts)] { then(merged); });
  });
  if (!taken) attempt.Fail(PlainFailure(TooMuch()));
  return taken;
}

void Scheduler::OnCheckpoint(Attempt& attempt, const std::vector<v1::CheckpointShard>& shards) {
  const v1::AttemptId id = attempt.id();
  LiveJob* job = JobOf(id);
  if (job == nullptr) return;
  const int64_t keep = job->job().spec().train().keep_checkpoints();
  ++job->joining;
  UpdateHold(*job);
  Merge(
      attempt,
      [id, shards, most = max_shard_bytes_](ArtifactStore& artifacts) {
        return AssembleYielding(artifacts, id, shards, most);
      },
      [this, id, keep](const absl::StatusOr<CheckpointFiles>& files) { OnAssembled(id, keep, files); });
}

// A checkpoint of a job that has failed meanwhile is as good as any.
void Scheduler::OnAssembled(const v1::AttemptId& attempt, int64_t keep, absl::StatusOr<CheckpointFiles> files) {
  absl::Status stored = files.status();
  if (files.ok()) {
    auto dropped = book_->store().AddCheckpoint(attempt.job(), *files, keep, loop_->Now());
    stored = dropped.status();
    if (dropped.ok()) housekeeper_->Remove(*std::move(dropped));
  }
  LiveJob* job = JobOf(attempt);
  if (job == nullptr) return;
  --job->joining;
  UpdateHold(*job);
  if (!stored.ok()) return job->attempt->Fail(PlainFailure(stored));
  book_->Note(*job, "orchestrator", absl::StrCat("checkpoint of step ", files->step));
  job->attempt->OnSaved(files->step);
}

void Scheduler::UpdateHold(LiveJob& job) {
  if (job.attempt != nullptr) job.attempt->Hold(!held_.empty() || job.joining >= kMaxJoining);
}

void Scheduler::OnTrained(Attempt& attempt, const std::vector<v1::Finished>& results) {
  LiveJob* job = JobOf(attempt.id());
  if (job == nullptr) return;
  const v1::AttemptId id = attempt.id();
  const bool taken = Merge(
      attempt,
      [id, results, most = max_shard_bytes_](ArtifactStore& artifacts) {
        return JoinResults(artifacts, id, results, most);
      },
      [this, id](const absl::StatusOr<std::vector<v1::ResultFile>>& model) { OnModel(id, model); });
  if (taken) job->model_stored = job->storing_model = true;
}

// The job may have ended otherwise meanwhile: its model is as good as any.
void Scheduler::OnModel(const v1::AttemptId& attempt, const absl::StatusOr<std::vector<v1::ResultFile>>& model) {
  absl::Status stored = model.status();
  if (model.ok()) {
    for (const v1::ResultFile& file : *model) stored.Update(book_->store().AddResult(attempt.job(), file));
  }
  LiveJob* job = JobOf(attempt);
  if (job == nullptr) return;
  job->storing_model = false;
  job->model_error = stored;
  if (const auto end = std::exchange(job->end, nullptr)) return end();
  if (!stored.ok()) job->attempt->Fail(PlainFailure(stored));
}

void Scheduler::OnFinished(Attempt& attempt, const std::vector<v1::Finished>& finished) {
  const LiveJob* job = JobOf(attempt.id());
  std::vector<v1::Finished> results = finished;
  if (job != nullptr && job->model_stored) {
    for (v1::Finished& result : results) result.clear_model();
  }
  const v1::AttemptId id = attempt.id();
  Merge(
      attempt,
      [id, results, most = max_shard_bytes_](ArtifactStore& artifacts) {
        auto files = JoinResults(artifacts, id, results, most);
        if (files.ok()) RemoveParts(artifacts, id);
        return files;
      },
      [this, id](const absl::StatusOr<std::vector<v1::ResultFile>>& files) { OnResults(id, files); });
}

void Scheduler::OnResults(const v1::AttemptId& attempt, absl::StatusOr<std::vector<v1::ResultFile>> results) {
  LiveJob* job = JobOf(attempt);
  if (job == nullptr) return;
  if (job->storing_model) {
    job->end = [this, attempt, results = std::move(results)] { OnResults(attempt, results); };
    return;
  }
  absl::Status stored = job->model_error;
  stored.Update(results.status());
  if (results.ok()) {
    for (const v1::ResultFile& result : *results) stored.Update(book_->store().AddResult(job->id(), result));
  }
  if (!stored.ok()) return job->attempt->Fail(PlainFailure(stored));
  const bool asked = spec::HasClientData(job->job().spec());
  job->job().set_rounds_done(asked ? job->attempt->rounds_done() : job->job().rounds_total());
  job->job().set_steps_done(job->job().steps_total());
  job->attempt->Release();
  LetLeave(*job);
  Apply(*job, JobEvent::kFinish, "orchestrator", "all rounds are done").IgnoreError();
}

void Scheduler::OnFailed(Attempt& attempt, const v1::Failure& failure) {
  LiveJob* job = JobOf(attempt.id());
  if (job == nullptr) return;
  AfterModel(*job, attempt, [this, failure](LiveJob& failed) { RestartOrFail(failed, failure); });
}

void Scheduler::OnInterrupted(Attempt& attempt) {
  LiveJob* job = JobOf(attempt.id());
  if (job == nullptr) return;
  AfterModel(*job, attempt,
             [this](LiveJob& interrupted) { Requeue(interrupted, "the orchestrator was stopped for a while"); });
}

// It has not run, so that this is no restart that counts: it waits for others, or until these ones can be reached
// again.
void Scheduler::OnUnreachable(Attempt& attempt, const v1::Failure& failure,
                              const std::vector<UnreachableWorker>& workers) {
  for (const UnreachableWorker& worker : workers) {
    WorkerEntry* entry = cluster_->registry().Find(attempt.workers()[worker.index]);
    if (entry != nullptr) cluster_->registry().SetUnreachable(*entry, worker.why, loop_->Now());
  }
  LiveJob* job = JobOf(attempt.id());
  if (job == nullptr) return;
  if (MaxRestarts(job->job().spec()) == 0 && LacksWorkers(*job)) return Fail(*job, failure);
  *job->job().mutable_last_failure() = failure;
  Requeue(*job, failure.message());
}

// What ends a job waits until the model that it has trained is stored.
void Scheduler::AfterModel(LiveJob& job, const Attempt& attempt, std::function<void(LiveJob&)> end) {
  if (!job.storing_model) return end(job);
  job.end = [this, id = attempt.id(), end = std::move(end)] {
    if (LiveJob* ended = JobOf(id); ended != nullptr) end(*ended);
  };
}

// It queues again, as after a restart: the workers have let go, and their next attempt goes on from the checkpoint.
void Scheduler::Requeue(LiveJob& job, std::string_view why) {
  // What a client has asked for so far is in these workers, and nowhere else.
  if (spec::HasClientData(job.job().spec()) && job.client != nullptr) {
    return Fail(job, PlainFailure(absl::AbortedError(absl::StrCat("its workers were lost: ", AbslView(why)))));
  }
  LetLeave(job);
  DropParts(job);
  job.model_stored = false;
  job.model_error = absl::OkStatus();
  book_->Flush();
  if (const absl::Status queued = book_->Requeue(job, why); !queued.ok()) {
    return Fail(job, PlainFailure(queued));
  }
  ScheduleSoon();
}

void Scheduler::RestartOrFail(LiveJob& job, v1::Failure failure) {
  failure.set_step(StepUnderWay(job.job()));
  const AfterFailure after = JudgeFailure(job.job(), failure);
  if (!after.restarts_in.has_value()) {
    failure.set_message(after.why);
    return Fail(job, failure);
  }
  v1::Job& told = job.job();
  *told.mutable_last_failure() = std::move(failure);
  if (after.counts) told.set_restarts(told.restarts() + 1);
  *told.mutable_restart_time() = ToTimestamp(loop_->Now() + *after.restarts_in);
  Requeue(job, after.why);
}

void Scheduler::Fail(LiveJob& job, const v1::Failure& failure) {
  *job.job().mutable_failure() = failure;
  if (failure.code() == kDamagedFile) RemoveDamaged(job);
  if (MayBeMisdescribed(failure)) cluster_->inspector().ForgetAnswers();
  LetLeave(job);
  DropParts(job);
  const std::string actor = failure.worker().empty() ? "orchestrator" : failure.worker();
  Apply(job, JobEvent::kFail, actor, failure.message()).IgnoreError();
}

// What has rotted on the disk can be given again once it is gone, as the job's owner will do.
void Scheduler::RemoveDamaged(const LiveJob& job) {
  FileMap files = job.stored.files;
  if (job.stored.resume.has_value()) {
    for (const auto& [name, ref] : job.stored.resume->files) files.emplace(absl::StrCat("resume: ", name), ref);
  }
  for (const auto& [path, ref] : files) {
    checker_->InBackground<absl::StatusOr<bool>>(
        [artifacts = artifacts_, ref = ref] { return artifacts->RemoveIfDamaged(ref); },
        [id = job.id(), path = path](absl::StatusOr<bool> removed) {
          if (removed.value_or(false)) spdlog::error("job {}: {} has to be submitted again", id, path);
        });
  }
}

// The batch that stores the end of the job also sends the leave that workers wait for.
void Scheduler::LetLeave(const LiveJob& job) {
  if (job.attempt == nullptr) return;
  for (const std::string& name : job.attempt->workers()) {
    WorkerEntry* worker = cluster_->registry().Find(name);
    if (worker == nullptr || worker->state != v1::Worker::STATE_LEAVING) continue;
    const bool let_go = worker->attempt.job().empty();
    if (let_go || SameAttempt(worker->attempt, job.attempt->id())) cluster_->GrantLeave(*worker);
  }
}

// After the checkpoints that are whole already. What a worker leaves later, or finds no place in the queue, goes at the
// next start.
void Scheduler::DropParts(const LiveJob& job) {
  if (job.attempt == nullptr) return;
  merges_->Run([artifacts = artifacts_, id = job.attempt->id()] { RemoveParts(*artifacts, id); });
}

// A change that the transition table refuses here is a fault of this program; the job stays as it is.
absl::Status Scheduler::Apply(LiveJob& job, JobEvent event, std::string_view actor, std::string_view message) {
  absl::Status changed = book_->Change(job, event, actor, message);
  if (!changed.ok()) spdlog::error("job {}: {}", job.id(), StdView(changed.message()));
  ScheduleSoon();
  return changed;
}

}  // namespace gpipe::orchestrator
