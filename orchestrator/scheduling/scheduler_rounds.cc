// What the client of a job with client data asks of it.

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/spec/client_data.h"
#include "common/status_macros.h"
#include "orchestrator/scheduling/scheduler.h"

namespace gpipe::orchestrator {
namespace {

v1::AskRoundsResponse Opened(const v1::Plan& plan) {
  v1::AskRoundsResponse response;
  *response.mutable_opened()->mutable_outputs() = plan.layers(plan.layers_size() - 1).outputs();
  return response;
}

absl::Status NoClient(const LiveJob& job) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat("job ", job.id(), " is not asked for rounds by you")),
                    reason::kWrongJobState);
}

}  // namespace

absl::Status Scheduler::OpenRounds(std::string_view id, const std::shared_ptr<AnswerQueue>& client) {
  LiveJob* job = book_->Find(id);
  if (job == nullptr) {
    GPIPE_ASSIGN_OR_RETURN(const v1::Job over, book_->Get(id));
    return WithReason(absl::FailedPreconditionError(absl::StrCat("job ", over.id(), " is over")),
                      reason::kWrongJobState);
  }
  if (!spec::HasClientData(job->job().spec())) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat("job ", job->id(), " has no train.dataset.client")),
                      reason::kWrongJobState);
  }
  if (job->client != nullptr) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat("job ", job->id(), " has a client already")),
                      reason::kWrongJobState);
  }
  job->client = client;
  if (job->attempt != nullptr && job->attempt->running()) client->Push(Opened(job->attempt->plan()));
  return absl::OkStatus();
}

absl::Status Scheduler::Ask(std::string_view id, const std::shared_ptr<AnswerQueue>& client,
                            const v1::AskedRound& round) {
  LiveJob* job = book_->Find(id);
  if (job == nullptr) return absl::OkStatus();  // Its end is on its way to the client.
  if (job->client != client || job->attempt == nullptr) return NoClient(*job);
  if (client->unread() >= AskedRounds::kMaxWaiting) {
    return WithReason(absl::ResourceExhaustedError(absl::StrCat(client->unread(), " answers have not been read yet")),
                      reason::kOverloaded);
  }
  GPIPE_RETURN_IF_ERROR(job->attempt->Ask(round));
  if (job->attempt->running()) job->round_files.Ask(round.data(), loop_->Now());
  return absl::OkStatus();
}

void Scheduler::CloseRounds(std::string_view id, const std::shared_ptr<AnswerQueue>& client) {
  LiveJob* job = book_->Find(id);
  if (job == nullptr || job->client != client) return;
  job->client_done = true;
  if (job->attempt != nullptr && job->attempt->running()) job->attempt->CloseRounds();
}

void Scheduler::LoseClient(std::string_view id, const std::shared_ptr<AnswerQueue>& client) {
  LiveJob* job = book_->Find(id);
  if (job == nullptr || job->client != client || job->client_done) return;
  book_->Warn(*job, "the client that asked for its rounds went away");
  Cancel(id).IgnoreError();
}

// Its workers wait for a client now.
void Scheduler::AwaitClient(LiveJob& job) {
  if (!spec::HasClientData(job.job().spec())) return;
  if (job.client_done) return job.attempt->CloseRounds();
  if (job.client != nullptr) return job.client->Push(Opened(job.attempt->plan()));
  loop_->PostAfter(kClientPatience, [this, id = job.attempt->id()] {
    LiveJob* waiting = JobOf(id);
    if (waiting == nullptr || waiting->client != nullptr) return;
    book_->Warn(*waiting, "no client has come to ask for rounds");
    Cancel(id.job()).IgnoreError();
  });
}

void Scheduler::OnAnswer(Attempt& attempt, const v1::RoundAnswer& answer) {
  LiveJob* job = JobOf(attempt.id());
  if (job == nullptr || job->client == nullptr) return;
  job->round_files.Answer(answer, loop_->Now());
  DropRoundFiles(*job);
  v1::AskRoundsResponse response;
  *response.mutable_done() = answer;
  job->client->Push(std::move(response));
}

void Scheduler::DropRoundFiles(LiveJob& job) {
  std::vector<Store::Dropped> old = job.round_files.TakeOld(loop_->Now());
  if (!old.empty()) housekeeper_->Remove(std::move(old));
}

}  // namespace gpipe::orchestrator
