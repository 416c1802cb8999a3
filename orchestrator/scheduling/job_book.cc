#include "orchestrator/scheduling/job_book.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/printable.h"
#include "common/spec/client_data.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "common/timestamp.h"
#include "orchestrator/scheduling/failure.h"
#include "orchestrator/scheduling/restart.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

std::string NewId(std::string_view name) {
  constexpr std::string_view kDigits = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::random_device random;
  std::uniform_int_distribution<size_t> digit(0, kDigits.size() - 1);
  std::string id = absl::StrCat(AbslView(name), "-");
  for (int i = 0; i < 6; ++i) id.push_back(kDigits[digit(random)]);
  return id;
}

// When the worker logged it, by its own clock, as far as that can be: a little ago.
absl::Time TimeOf(const v1::LogLine& line, absl::Time now) {
  constexpr absl::Duration kLongestWay = absl::Seconds(10);
  const absl::Time logged = absl::FromUnixSeconds(line.time().seconds()) + absl::Nanoseconds(line.time().nanos());
  return logged <= now && now - logged <= kLongestWay ? logged : now;
}

// What is not stored of a job that is not over.
void AddLive(const LiveJob& live, v1::Job& job) {
  // What a job has that waits for workers is the attempt before.
  if (live.attempt == nullptr || job.state() == v1::Job::STATE_QUEUED) return;
  // Rounds that are no steps are not stored one by one.
  if (!IsTerminal(job.state())) job.set_rounds_done(RoundsDone(live));
  for (v1::Activity& activity : live.attempt->Activities()) *job.add_activities() = std::move(activity);
}

// A store that fails here does not fail silently: the commit of the batch fails, too.
void LogIfError(const absl::Status& status) {
  if (!status.ok()) spdlog::error("storing a job: {}", StdView(status.message()));
}

}  // namespace

int64_t RoundsDone(const LiveJob& job) {
  if (job.attempt == nullptr) return job.job().rounds_done();
  const int64_t done = job.attempt->rounds_done(), total = job.job().rounds_total();
  return total > 0 ? std::min(done, total) : done;
}

v1::Job Summary(const LiveJob& job) {
  v1::Job summary = job.job();
  summary.clear_spec();
  summary.clear_results();
  AddLive(job, summary);
  return summary;
}

absl::Status JobBook::Recover() {
  GPIPE_ASSIGN_OR_RETURN(std::vector<StoredJob> jobs, store_->UnfinishedJobs());
  for (StoredJob& stored : jobs) {
    const std::string id = stored.job.id();
    auto job = std::make_shared<LiveJob>();
    job->stored = std::move(stored);
    by_sequence_[job->stored.sequence] = job.get();
    live_[id] = job;
    if (listener_ != nullptr) listener_->OnJobProgress(*job);
    ForgetAnotherClock(*job);
    if (job->job().state() != v1::Job::STATE_QUEUED) GPIPE_RETURN_IF_ERROR(TakeUp(*job));
  }
  return absl::OkStatus();
}

// It was restarting when the clock was ahead of what it is now.
void JobBook::ForgetAnotherClock(LiveJob& job) {
  if (!job.job().has_restart_time()) return;
  const absl::Time latest = loop_->Now() + kLongestRestartDelay;
  if (FromTimestamp(job.job().restart_time()) <= latest) return;
  *job.job().mutable_restart_time() = ToTimestamp(latest);
  Touch(job);
}

// What a client has asked for was in its workers, and nowhere else.
absl::Status JobBook::TakeUp(LiveJob& job) {
  constexpr std::string_view kWhy = "orchestrator restarted";
  if (!spec::HasClientData(job.job().spec())) return Requeue(job, kWhy);
  *job.job().mutable_failure() =
      PlainFailure(absl::AbortedError(absl::StrCat("its workers were lost: ", AbslView(kWhy))));
  return Change(job, JobEvent::kFail, "orchestrator", job.job().failure().message());
}

absl::Status JobBook::Requeue(LiveJob& job, std::string_view why) {
  GPIPE_ASSIGN_OR_RETURN(std::optional<CheckpointFiles> checkpoint, store_->LatestCheckpoint(job.id()));
  const std::string from =
      checkpoint.has_value() ? absl::StrCat("the checkpoint of step ", checkpoint->step) : std::string("the beginning");
  return Change(job, JobEvent::kRequeue, "orchestrator", absl::StrCat(AbslView(why), "; goes on from ", from));
}

absl::StatusOr<Store::Inserted> JobBook::Add(StoredJob stored) {
  stored.job.set_state(v1::Job::STATE_QUEUED);
  stored.job.set_reason("submitted");
  *stored.job.mutable_create_time() = ToTimestamp(loop_->Now());
  absl::StatusOr<Store::Inserted> inserted = absl::AbortedError("no id was free");
  for (int tries = 0; tries < 10 && absl::IsAborted(inserted.status()); ++tries) {
    stored.job.set_id(NewId(stored.job.spec().name()));
    inserted = store_->InsertJob(stored);
  }
  if (!inserted.ok() || !inserted->created) return inserted;
  auto job = std::make_shared<LiveJob>();
  job->stored = inserted->job;
  by_sequence_[job->stored.sequence] = job.get();
  live_[job->id()] = job;
  spdlog::info("job {} is QUEUED: submitted", job->id());
  Record(*job, "client", "submitted");
  if (listener_ != nullptr) listener_->OnJobChanged(*job);
  if (observer_ != nullptr) observer_->OnAdded(job->job());
  return inserted;
}

LiveJob* JobBook::Find(std::string_view id) {
  auto found = live_.find(id);
  return found == live_.end() ? nullptr : found->second.get();
}

std::vector<LiveJob*> JobBook::Queue(size_t most) {
  std::vector<LiveJob*> queue;
  for (auto& [sequence, job] : by_sequence_) {
    if (queue.size() == most) break;
    if (job->job().state() == v1::Job::STATE_QUEUED) queue.push_back(job);
  }
  return queue;
}

std::vector<LiveJob*> JobBook::All() {
  std::vector<LiveJob*> all;
  for (auto& [sequence, job] : by_sequence_) all.push_back(job);
  return all;
}

absl::Status JobBook::Change(LiveJob& job, JobEvent event, std::string_view actor, std::string_view message) {
  GPIPE_ASSIGN_OR_RETURN(v1::Job::State next, Transition(job.job().state(), event));
  if (next == job.job().state()) return absl::OkStatus();
  spdlog::info("job {} is {}: {}", job.id(), StateName(next), message);
  job.job().set_state(next);
  job.job().set_reason(std::string(message));
  if (next == v1::Job::STATE_STARTING && !job.job().has_start_time())
    *job.job().mutable_start_time() = ToTimestamp(loop_->Now());
  if (IsTerminal(next)) {
    *job.job().mutable_end_time() = ToTimestamp(loop_->Now());
    job.job().set_paused(false);
    job.job().clear_restart_time();
  }
  job.dirty = true;
  Save(job);
  Record(job, actor, message);
  AnnounceJob(job);
  if (listener_ != nullptr) listener_->OnJobChanged(job);
  if (observer_ != nullptr) observer_->OnChanged(job.job(), event);
  if (IsTerminal(next)) Forget(job);
  return absl::OkStatus();
}

void JobBook::Explain(LiveJob& job, std::string_view actor, std::string_view reason) {
  if (job.job().reason() == reason) return;
  job.job().set_reason(std::string(reason));
  Touch(job);
  Note(job, actor, reason);
}

void JobBook::Note(LiveJob& job, std::string_view actor, std::string_view message) {
  spdlog::info("job {}: {}", job.id(), message);
  Record(job, actor, message);
  AnnounceJob(job);
}

void JobBook::Warn(LiveJob& job, std::string_view message) {
  spdlog::warn("job {}: {}", job.id(), message);
  Record(job, "orchestrator", message, /*warning=*/true);
  AnnounceJob(job);
}

void JobBook::AddLines(LiveJob& job, std::string_view worker, const v1::Log& log) {
  LineCount& count = job.lines;
  for (const v1::LogLine& line : log.lines()) {
    if (count.full) return;
    count.full = count.lines == kMaxLines || count.bytes + line.text().size() > kMaxLineBytes;
    if (count.full) return Record(job, "orchestrator", "there is more in the workers' own logs");
    ++count.lines;
    count.bytes += line.text().size();
    v1::JobEvent event;
    *event.mutable_time() = ToTimestamp(TimeOf(line, loop_->Now()));
    event.set_actor(std::string(worker));
    event.set_message(Printable(line.text()));
    event.set_warning(line.warning());
    Record(job, std::move(event));
  }
}

void JobBook::Record(LiveJob& job, std::string_view actor, std::string_view message, bool warning) {
  v1::JobEvent event;
  *event.mutable_time() = ToTimestamp(loop_->Now());
  event.set_actor(std::string(actor));
  event.set_message(std::string(message));
  event.set_warning(warning);
  Record(job, std::move(event));
}

void JobBook::Record(LiveJob& job, v1::JobEvent event) {
  event.set_attempt(job.job().attempt());
  event.set_state(job.job().state());
  absl::StatusOr<v1::JobEvent> stored = store_->AppendEvent(job.id(), event);
  if (!stored.ok()) return LogIfError(stored.status());
  v1::WatchJobResponse update;
  *update.mutable_event() = *std::move(stored);
  Announce(job, std::move(update));
}

void JobBook::AddStep(LiveJob& job, const v1::StepMetrics& step, StepDetail detail) {
  job.unsaved.push_back(step);
  *job.job().mutable_last_step() = step;
  if (observer_ != nullptr) observer_->OnStep(job.job(), step);
  if (job.unsaved.size() >= kMaxUnsaved) Save(job);
  Touch(job);
  v1::WatchJobResponse update;
  *update.mutable_step() = step;
  Announce(job, std::move(update));
  AnnounceStages(job, std::move(detail.stages));
  trails_.For(job.id()).timelines.Add(job.job(), step, std::move(detail));
}

void JobBook::AddEvaluation(LiveJob& job, const v1::EvaluationMetrics& evaluation) {
  LogIfError(store_->AppendEvaluation(job.id(), evaluation));
  v1::WatchJobResponse update;
  *update.mutable_evaluation() = evaluation;
  Announce(job, std::move(update));
}

// Metrics are stored a few times a second: a commit per step would cost more than the step.
void JobBook::Touch(LiveJob& job) {
  job.dirty = true;
  if (listener_ != nullptr) listener_->OnJobProgress(job);
  if (flush_scheduled_) return;
  flush_scheduled_ = true;
  loop_->PostAfter(kFlushInterval, [this] {
    flush_scheduled_ = false;
    Flush();
  });
}

void JobBook::Flush() {
  for (auto& [sequence, job] : by_sequence_) Save(*job);
}

void JobBook::Save(LiveJob& job) {
  if (!job.unsaved.empty()) LogIfError(store_->AppendSteps(job.id(), job.unsaved));
  job.unsaved.clear();
  if (job.dirty) LogIfError(store_->UpdateJob(job.job()));
  job.dirty = false;
}

namespace {

// As the call ends in which a client asked for the job's rounds.
absl::Status EndForClient(const v1::Job& job) {
  if (job.state() == v1::Job::STATE_SUCCEEDED) return absl::OkStatus();
  if (job.state() == v1::Job::STATE_CANCELLED)
    return absl::CancelledError(absl::StrCat("job ", job.id(), " was cancelled"));
  return absl::AbortedError(absl::StrCat("job ", job.id(), " failed: ", job.failure().message()));
}

}  // namespace

void JobBook::Forget(LiveJob& job) {
  trails_.End(job.id());
  by_sequence_.erase(job.stored.sequence);
  auto node = live_.extract(job.id());
  loop_->AfterCommit([last = std::move(node.mapped())](const absl::Status& stored) {
    for (const auto& watcher : last->watchers) watcher->Close(stored);
    if (last->client != nullptr) last->client->Close(stored.ok() ? EndForClient(last->job()) : stored);
  });
}

absl::StatusOr<v1::Job> JobBook::Get(std::string_view id) {
  LiveJob* live = Find(id);
  if (live != nullptr) Save(*live);
  GPIPE_ASSIGN_OR_RETURN(StoredJob stored, store_->GetJob(id));
  if (live != nullptr) AddLive(*live, stored.job);
  return std::move(stored.job);
}

absl::StatusOr<Page<v1::Job>> JobBook::List(int page_size, std::string_view page_token,
                                            const std::vector<v1::Job::State>& states, bool with_results) {
  Flush();
  return store_->ListJobs(page_size, page_token, states, with_results);
}

absl::StatusOr<Page<v1::JobEvent>> JobBook::ListEvents(std::string_view id, int page_size,
                                                       std::string_view page_token) {
  return store_->ListEvents(id, page_size, page_token);
}

absl::StatusOr<v1::ListJobMetricsResponse> JobBook::ListMetrics(std::string_view id, int page_size,
                                                                std::string_view page_token) {
  if (LiveJob* live = Find(id); live != nullptr) Save(*live);
  GPIPE_ASSIGN_OR_RETURN(Page<v1::StepMetrics> page, store_->ListSteps(id, page_size, page_token));
  v1::ListJobMetricsResponse response;
  response.mutable_steps()->Assign(page.items.begin(), page.items.end());
  response.set_next_page_token(page.next_page_token);
  if (!page_token.empty()) return response;
  GPIPE_ASSIGN_OR_RETURN(std::vector<v1::EvaluationMetrics> evaluations, store_->ListEvaluations(id));
  response.mutable_evaluations()->Assign(evaluations.begin(), evaluations.end());
  return response;
}

}  // namespace gpipe::orchestrator
