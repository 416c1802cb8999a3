#include "orchestrator/scheduling/job_trails.h"

#include <algorithm>

namespace gpipe::orchestrator {

JobTrail& JobTrails::For(const std::string& id) {
  std::unique_ptr<JobTrail>& trail = trails_[id];
  if (trail == nullptr) trail = std::make_unique<JobTrail>();
  return *trail;
}

JobTrail* JobTrails::Find(std::string_view id) {
  const auto found = trails_.find(id);
  return found == trails_.end() ? nullptr : found->second.get();
}

void JobTrails::End(const std::string& id) {
  const JobTrail* trail = Find(id);
  if (trail == nullptr) return;
  ended_.push_back(id);
  ended_actions_ += trail->timelines.actions();
  while (ended_.size() > kMaxEnded || (ended_actions_ > kMaxEndedActions && ended_.size() > 1)) {
    Forget(std::string(ended_.front()));
  }
}

void JobTrails::Forget(const std::string& id) {
  const auto found = trails_.find(id);
  if (found == trails_.end()) return;
  const auto ended = std::find(ended_.begin(), ended_.end(), id);
  if (ended != ended_.end()) {
    ended_actions_ -= found->second->timelines.actions();
    ended_.erase(ended);
  }
  trails_.erase(found);
}

}  // namespace gpipe::orchestrator
