#include "orchestrator/scheduling/round_files.h"

#include <utility>

namespace gpipe::orchestrator {

void RoundFiles::Ask(const v1::ArtifactRef& data, absl::Time now) { asked_.push_back({data, now}); }

// Another round may have the same content. Its client has claimed that since this round was asked for; a worker that
// made it again has claimed it since this round was answered.
void RoundFiles::Answer(const v1::RoundAnswer& answer, absl::Time now) {
  if (asked_.empty()) return;
  const Asked round = std::move(asked_.front());
  asked_.pop_front();
  if (!round.data.sha256().empty()) Add(now, {.files = {round.data}, .since = round.when});
  Store::Dropped made{.files = {}, .since = now};
  for (const v1::ArtifactRef& result : answer.results()) {
    if (!result.sha256().empty()) made.files.push_back(result);
  }
  if (!made.files.empty()) Add(now, std::move(made));
}

void RoundFiles::Add(absl::Time now, Store::Dropped files) {
  answered_.push_back({now, std::move(files)});
  if (answered_.size() > kMostRounds) answered_.pop_front();
}

std::vector<Store::Dropped> RoundFiles::TakeOld(absl::Time now) {
  std::vector<Store::Dropped> old;
  if (now < taken_ + kEvery || answered_.empty() || answered_.front().when > now - kLast) return old;
  taken_ = now;
  while (!answered_.empty() && answered_.front().when <= now - kLast) {
    old.push_back(std::move(answered_.front().files));
    answered_.pop_front();
  }
  return old;
}

}  // namespace gpipe::orchestrator
