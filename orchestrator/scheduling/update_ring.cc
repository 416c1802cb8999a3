#include "orchestrator/scheduling/update_ring.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "orchestrator/scheduling/resume_token.h"

namespace gpipe::orchestrator {
namespace {

bool IsKept(const v1::WatchJobResponse& update) { return !update.has_cycle() && !update.has_activity(); }

}  // namespace

UpdateRing::UpdateRing() : epoch_(NewEpoch()) {}

JobUpdate UpdateRing::Add(v1::WatchJobResponse update) {
  if (!IsKept(update)) return WithToken(std::move(update), sequence_);
  const bool is_job = update.has_job();
  JobUpdate added = WithToken(std::move(update), sequence_ + 1);
  Keep(is_job ? nullptr : added, is_job ? 0 : added->ByteSizeLong());
  return added;
}

void UpdateRing::Keep(JobUpdate update, size_t bytes) {
  ++sequence_;
  bytes_ += bytes;
  kept_.push_back({std::move(update), bytes});
  while (kept_.size() > kMaxUpdates || bytes_ > kMaxBytes) {
    bytes_ -= kept_.front().bytes;
    kept_.pop_front();
  }
}

std::string UpdateRing::TokenFor(int64_t sequence) const { return ResumeToken(epoch_, sequence); }

JobUpdate UpdateRing::WithToken(v1::WatchJobResponse update, int64_t sequence) const {
  update.set_resume_token(TokenFor(sequence));
  return std::make_shared<const v1::WatchJobResponse>(std::move(update));
}

UpdateRing::Missed UpdateRing::After(std::string_view token, const v1::Job& job) const {
  Missed missed;
  const std::optional<int64_t> seen = SequenceIn(token, epoch_, sequence_);
  if (!seen.has_value()) return missed;
  missed.known = true;
  const int64_t dropped = std::max<int64_t>(0, first_kept() - 1 - *seen);
  const auto from = static_cast<size_t>(std::max<int64_t>(0, *seen + 1 - first_kept()));
  size_t job_at = kept_.size();  // Where it last changed.
  for (size_t i = from; i < kept_.size(); ++i) {
    if (kept_[i].update == nullptr) job_at = i;
  }
  // What is lost may have been the job's own.
  const bool job_first = dropped > 0 && job_at == kept_.size();
  if (dropped > 0) {
    v1::WatchJobResponse marker;
    marker.set_dropped(dropped);
    missed.updates.push_back(WithToken(std::move(marker), first_kept() - (job_first ? 2 : 1)));
  }
  v1::WatchJobResponse now;
  *now.mutable_job() = job;
  if (job_first) missed.updates.push_back(WithToken(now, first_kept() - 1));
  for (size_t i = from; i < kept_.size(); ++i) {
    if (kept_[i].update != nullptr) missed.updates.push_back(kept_[i].update);
    if (i == job_at) missed.updates.push_back(WithToken(now, first_kept() + static_cast<int64_t>(i)));
  }
  return missed;
}

}  // namespace gpipe::orchestrator
