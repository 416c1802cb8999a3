// What clients ask of a job, and what the orchestrator does to all of them.

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "orchestrator/scheduling/scheduler.h"

namespace gpipe::orchestrator {
namespace {

bool IsPaused(const LiveJob& job) { return job.job().state() == v1::Job::STATE_PAUSED; }

}  // namespace

absl::StatusOr<LiveJob*> Scheduler::FindForClient(std::string_view id, JobEvent event) {
  if (closed_) return absl::UnavailableError("the orchestrator is shutting down");
  LiveJob* job = book_->Find(id);
  if (job == nullptr) {
    GPIPE_ASSIGN_OR_RETURN(v1::Job over, book_->Get(id));
    GPIPE_RETURN_IF_ERROR(Transition(over.state(), event).status());
    return absl::InternalError(absl::StrCat("job ", over.id(), " is not in memory"));
  }
  GPIPE_RETURN_IF_ERROR(Transition(job->job().state(), event).status());
  return job;
}

absl::StatusOr<v1::Job> Scheduler::Cancel(std::string_view id) {
  GPIPE_ASSIGN_OR_RETURN(LiveJob * job, FindForClient(id, JobEvent::kCancel));
  if (job->attempt != nullptr) job->attempt->Abort("the job was cancelled");
  LetLeave(*job);
  DropParts(*job);
  GPIPE_RETURN_IF_ERROR(Apply(*job, JobEvent::kCancel, "client", "cancelled"));
  return book_->Get(id);
}

absl::StatusOr<v1::Job> Scheduler::Pause(std::string_view id) {
  GPIPE_ASSIGN_OR_RETURN(LiveJob * job, FindForClient(id, JobEvent::kPause));
  job->attempt->Pause();
  job->job().set_paused(true);
  GPIPE_RETURN_IF_ERROR(Apply(*job, JobEvent::kPause, "client", "paused"));
  return book_->Get(id);
}

absl::StatusOr<v1::Job> Scheduler::Resume(std::string_view id) {
  if (LiveJob* early = book_->Find(id); early != nullptr && early->job().paused() && !IsPaused(*early)) {
    early->job().set_paused(false);
    book_->Touch(*early);
    book_->Note(*early, "client", "resumed: it will not pause when it is back on its workers");
    return book_->Get(id);
  }
  GPIPE_ASSIGN_OR_RETURN(LiveJob * job, FindForClient(id, JobEvent::kResume));
  job->job().set_paused(false);
  GPIPE_RETURN_IF_ERROR(Apply(*job, JobEvent::kResume, "client", "resumed"));
  job->attempt->Resume();
  return book_->Get(id);
}

absl::StatusOr<v1::CheckpointJobResponse> Scheduler::Checkpoint(std::string_view id) {
  GPIPE_ASSIGN_OR_RETURN(LiveJob * job, FindForClient(id, JobEvent::kSave));
  GPIPE_ASSIGN_OR_RETURN(const int64_t step, job->attempt->Checkpoint());
  book_->Note(*job, "client", absl::StrCat("asked for a checkpoint of step ", step));
  v1::CheckpointJobResponse response;
  response.set_step(step);
  response.set_attempt(job->job().attempt());
  return response;
}

void Scheduler::Hold(const std::string& why) {
  held_ = why;
  for (LiveJob* job : book_->All()) {
    if (job->attempt == nullptr) continue;
    UpdateHold(*job);
    book_->Explain(*job, "orchestrator", why.empty() ? "goes on: there is room again" : absl::StrCat("held: ", why));
  }
  ScheduleSoon();
}

void Scheduler::Shutdown(std::string_view reason) {
  closed_ = true;
  book_->Flush();
  for (LiveJob* job : book_->All()) {
    if (job->attempt != nullptr) job->attempt->Abort(reason);
  }
}

}  // namespace gpipe::orchestrator
