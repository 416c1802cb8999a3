// What is said of jobs to those who watch them, now or a little later.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "orchestrator/scheduling/job_book.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {

void JobBook::Announce(const LiveJob& job, v1::WatchJobResponse update) {
  const JobUpdate shared = trails_.For(job.id()).updates.Add(std::move(update));
  if (job.watchers.empty()) return;
  loop_->AfterCommit([watchers = job.watchers, shared](const absl::Status& stored) {
    if (!stored.ok()) return;
    for (const auto& watcher : watchers) watcher->Push(shared);
  });
}

void JobBook::AnnounceJob(LiveJob& job) {
  if (job.watchers.empty()) return trails_.For(job.id()).updates.NoteJob();
  absl::StatusOr<v1::Job> now = Get(job.id());
  if (!now.ok()) return spdlog::error("reading a job: {}", StdView(now.status().message()));
  v1::WatchJobResponse update;
  *update.mutable_job() = *std::move(now);
  Announce(job, std::move(update));
}

// From the first watcher on who asks for it.
void JobBook::AnnounceStages(LiveJob& job, v1::StagesDone stages) {
  if (!trails_.For(job.id()).stages_wanted) return;
  v1::WatchJobResponse update;
  *update.mutable_stages() = std::move(stages);
  Announce(job, std::move(update));
}

void JobBook::AnnounceCycle(LiveJob& job, const v1::CycleDone& cycle) {
  v1::WatchJobResponse update;
  *update.mutable_cycle() = cycle;
  Announce(job, std::move(update));
}

void JobBook::AnnounceActivity(LiveJob& job, v1::WorkerActivity activity) {
  v1::WatchJobResponse update;
  *update.mutable_activity() = std::move(activity);
  Announce(job, std::move(update));
}

std::vector<JobUpdate> JobBook::FirstUpdates(const v1::Job& now, std::string_view resume_token) {
  JobTrail* trail = trails_.Find(now.id());
  if (trail == nullptr && !IsTerminal(now.state())) trail = &trails_.For(now.id());
  if (trail != nullptr && !resume_token.empty()) {
    UpdateRing::Missed missed = trail->updates.After(resume_token, now);
    if (missed.known) return std::move(missed.updates);
  }
  auto update = std::make_shared<v1::WatchJobResponse>();
  *update->mutable_job() = now;
  if (trail != nullptr) update->set_resume_token(trail->updates.Token());
  return {std::move(update)};
}

absl::Status JobBook::Watch(std::string_view id, std::shared_ptr<WatchQueue> queue, std::string_view resume_token) {
  GPIPE_ASSIGN_OR_RETURN(v1::Job now, Get(id));
  LiveJob* live = Find(id);
  if (live != nullptr && live->watchers.size() >= kMaxWatchers) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat("job ", AbslView(id), " has ", kMaxWatchers, " watchers already")),
        reason::kTooManyWatchers);
  }
  loop_->AfterCommit([queue, over = live == nullptr, first = FirstUpdates(now, resume_token)](const auto& stored) {
    if (stored.ok()) queue->Prime(first);
    if (over || !stored.ok()) queue->Close(stored);
  });
  if (live == nullptr) return absl::OkStatus();
  if (queue->wants().stages) trails_.For(live->id()).stages_wanted = true;
  live->watchers.push_back(std::move(queue));
  UpdateCycleWatch(*live);
  return absl::OkStatus();
}

void JobBook::Unwatch(std::string_view id, const std::shared_ptr<WatchQueue>& queue) {
  LiveJob* live = Find(id);
  if (live == nullptr) return;
  std::erase(live->watchers, queue);
  UpdateCycleWatch(*live);
}

void JobBook::UpdateCycleWatch(LiveJob& job) {
  if (job.attempt == nullptr) return;
  job.attempt->WatchCycles(
      std::any_of(job.watchers.begin(), job.watchers.end(), [](const auto& w) { return w->wants().cycles; }));
}

absl::StatusOr<v1::StepTimeline> JobBook::Timeline(std::string_view id, int64_t step) {
  const JobTrail* trail = trails_.Find(id);
  if (trail == nullptr) {
    GPIPE_RETURN_IF_ERROR(store_->GetJob(id).status());
    return absl::NotFoundError(absl::StrCat("no timeline is kept of job ", AbslView(id), ": it was over too long ago"));
  }
  absl::StatusOr<v1::StepTimeline> timeline = trail->timelines.Get(step);
  if (timeline.ok()) return timeline;
  return absl::Status(timeline.status().code(), absl::StrCat("job ", AbslView(id), ": ", timeline.status().message()));
}

void JobBook::Deleted(const std::string& id) {
  trails_.Forget(id);
  if (listener_ != nullptr) listener_->OnJobDeleted(id);
}

void JobBook::CloseWatches(const absl::Status& why) {
  for (auto& [sequence, job] : by_sequence_) {
    for (const auto& watcher : job->watchers) watcher->Close(why);
    job->watchers.clear();
    if (job->client != nullptr) job->client->Close(why);
  }
}

}  // namespace gpipe::orchestrator
