#include "client/cli/plain_lines.h"

#include "absl/strings/str_cat.h"
#include "client/api/job_states.h"
#include "client/cli/render.h"

namespace gpipe::client {

std::vector<std::string> PlainLines::Take(const v1::WatchJobResponse& update, absl::Time now) {
  const v1::Job::State state = progress_.job().state();
  const int attempt = progress_.job().attempt();
  const std::string reason = progress_.job().reason();
  progress_.Apply(update, now);
  switch (update.update_case()) {
    case v1::WatchJobResponse::kJob:
      // How it ended is said by whoever watches, in more words.
      if (IsTerminal(update.job().state())) return {};
      if (update.job().state() != state || update.job().attempt() != attempt) return {RenderState(update.job())};
      // What it waits for now.
      if (state == v1::Job::STATE_QUEUED && update.job().reason() != reason) return {RenderState(update.job())};
      return {};
    case v1::WatchJobResponse::kStep:
      if (now - last_progress_ < absl::Seconds(1)) return {};
      last_progress_ = now;
      return {RenderProgressLine(progress_, now)};
    case v1::WatchJobResponse::kActivity:
      if (now - last_progress_ < absl::Seconds(1)) return {};
      last_progress_ = now;
      return {RenderActivity(progress_.job(), update.activity())};
    case v1::WatchJobResponse::kStages:
      if (now - last_stages_ < absl::Seconds(1)) return {};
      last_stages_ = now;
      return RenderStages(progress_.job(), update.stages());
    case v1::WatchJobResponse::kEvaluation:
      return {RenderEvaluation(update.evaluation())};
    case v1::WatchJobResponse::kEvent:
      if (!IsNews(update.event())) return {};
      return {RenderWarning(update.event().message())};
    case v1::WatchJobResponse::kCycle:
      return {RenderCycle(update.cycle())};
    case v1::WatchJobResponse::kDropped:
      return {absl::StrCat("(", update.dropped(), " updates left out: reading was too slow)")};
    default:
      return {};
  }
}

}  // namespace gpipe::client
