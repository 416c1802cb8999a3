#include "client/cli/job_progress.h"

#include <algorithm>
#include <utility>

namespace gpipe::client {

std::optional<absl::Duration> Eta(int64_t done_at_start, int64_t done, int64_t total, absl::Duration elapsed) {
  const int64_t made = done - done_at_start;
  if (made <= 0 || total <= 0 || elapsed <= absl::ZeroDuration()) return std::nullopt;
  const int64_t left = std::max<int64_t>(0, total - done);
  return elapsed * (static_cast<double>(left) / static_cast<double>(made));
}

bool IsNews(const v1::JobEvent& event) { return event.warning() && event.actor() == "orchestrator"; }

void JobProgress::Apply(const v1::WatchJobResponse& update, absl::Time now) {
  switch (update.update_case()) {
    case v1::WatchJobResponse::kJob:
      ApplyJob(update.job(), now);
      break;
    case v1::WatchJobResponse::kStep:
      step_ = update.step();
      done_ = std::max(done_, update.step().step());
      if (std::exchange(joined_late_, false)) SetPace(now);
      break;
    case v1::WatchJobResponse::kEvaluation:
      evaluation_ = update.evaluation();
      break;
    case v1::WatchJobResponse::kStages:
      stages_ = update.stages();
      break;
    case v1::WatchJobResponse::kEvent:
      if (IsNews(update.event()) && warnings_.size() < kMaxWarnings) warnings_.push_back(update.event().message());
      break;
    case v1::WatchJobResponse::kActivity:
      if (const int worker = update.activity().worker(); worker >= 0 && worker < job_.activities_size()) {
        *job_.mutable_activities(worker) = update.activity().activity();
      }
      break;
    default:
      break;
  }
}

void JobProgress::ApplyJob(const v1::Job& job, absl::Time now) {
  const bool begins = job.state() == v1::Job::STATE_RUNNING &&
                      (job_.state() != v1::Job::STATE_RUNNING || job_.attempt() != job.attempt());
  const int64_t done = job.spec().has_train() ? job.steps_done() : job.rounds_done();
  // Within an attempt a job's count may be older than the last step's; a new attempt begins earlier.
  done_ = job.attempt() == job_.attempt() ? std::max(done_, done) : done;
  joined_late_ = begins && job_.id().empty() && done > 0;
  job_ = job;
  if (begins) SetPace(now);
}

void JobProgress::SetPace(absl::Time now) {
  pace_from_ = now;
  pace_from_done_ = done_;
}

int64_t JobProgress::total() const { return trains() ? job_.steps_total() : job_.rounds_total(); }

double JobProgress::share() const {
  if (job_.state() == v1::Job::STATE_SUCCEEDED) return 1;
  return total() > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total())) : 0;
}

std::string JobProgress::unit() const { return trains() ? "step" : "batch"; }

absl::Duration JobProgress::elapsed(absl::Time now) const {
  return pace_from_ == absl::InfinitePast() ? absl::ZeroDuration() : now - pace_from_;
}

std::optional<absl::Duration> JobProgress::eta(absl::Time now) const {
  if (job_.state() != v1::Job::STATE_RUNNING) return std::nullopt;
  return Eta(pace_from_done_, done_, total(), elapsed(now));
}

}  // namespace gpipe::client
