#include "client/api/follow.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "client/api/job_states.h"

namespace gpipe::client {
namespace {

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kLongestBackoff = absl::Seconds(2);

// A stream that ends well, or is cancelled by somebody else than us, before the job has ended, was closed by an
// orchestrator that is shutting down.
bool IsBroken(const absl::Status& status, const ClusterClient& client) {
  if (absl::IsCancelled(status)) return !client.stop().stop_requested();
  return status.ok() || absl::IsUnavailable(status);
}

absl::Status GivenUp(const absl::Status& status, const ClusterClient& client) {
  if (!status.ok() && !absl::IsCancelled(status)) return status;
  return absl::UnavailableError(absl::StrCat("orchestrator at ", client.address(), " ended the stream"));
}

absl::Status TimedOut(const std::string& id, const FollowOptions& options, const std::optional<v1::Job>& job) {
  const std::string state = job.has_value() ? absl::StrCat("; it is ", StateName(job->state())) : "";
  return absl::DeadlineExceededError(
      absl::StrCat(id, " did not ", options.awaited, " within ", absl::FormatDuration(options.timeout), state));
}

}  // namespace

absl::StatusOr<v1::Job> FollowJob(ClusterClient& client, const std::string& id, const FollowOptions& options,
                                  const std::function<void(const v1::WatchJobResponse&)>& on_update) {
  v1::WatchJobRequest request;
  request.set_id(id);
  request.set_cycles(options.cycles);
  request.set_stages(options.stages);
  const absl::Time deadline = absl::Now() + options.timeout;
  absl::Duration backoff = kFirstBackoff;
  std::optional<v1::Job> job;
  std::string token;  // Of the last update.
  const auto ended = [&] {
    return job.has_value() && (IsTerminal(job->state()) || (options.until != nullptr && options.until(*job)));
  };
  while (true) {
    request.set_resume_token(token);
    const absl::Status status = client.WatchJob(request, deadline, [&](const v1::WatchJobResponse& update) {
      backoff = kFirstBackoff;
      if (update.has_job()) job = update.job();
      token = update.resume_token();
      on_update(update);
      return !ended() || IsTerminal(job->state());  // What follows a job's end is still told.
    });
    if (ended()) return *std::move(job);
    if (absl::IsDeadlineExceeded(status)) return TimedOut(id, options, job);
    if (!IsBroken(status, client)) return status;
    if (absl::Now() >= deadline) return TimedOut(id, options, job);
    if (absl::Now() - client.last_heard() > options.patience) return GivenUp(status, client);
    if (!WaitUnlessStopped(client.stop(), std::min(backoff, deadline - absl::Now()))) {
      return absl::CancelledError("stopped watching");
    }
    backoff = std::min(backoff * 2, kLongestBackoff);
  }
}

}  // namespace gpipe::client
