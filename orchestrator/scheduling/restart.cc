#include "orchestrator/scheduling/restart.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/spec/validator.h"
#include "common/string_view.h"
#include "orchestrator/scheduling/failure.h"

namespace gpipe::orchestrator {
namespace {

// One step that has cost two workers would cost the next one, too.
bool IsTheSameStep(const v1::Failure& before, const v1::Failure& now) {
  const bool of_two = !before.worker().empty() && !now.worker().empty() && before.worker() != now.worker();
  return of_two && now.step() > 0 && before.step() == now.step() && MayBeTheStep(before.code()) &&
         MayBeTheStep(now.code());
}

// `checkpoint: auto` was too hopeful: the next plan keeps less (PlanInput.ran_out_of_memory).
bool CanKeepLess(const v1::Job& job, const v1::Failure& failure) {
  const v1::Checkpoint asked = job.spec().pipeline().checkpoint();
  const bool open = asked == v1::CHECKPOINT_AUTO || asked == v1::CHECKPOINT_UNSPECIFIED;
  return failure.code() == kOutOfMemory && open && job.checkpoint() == v1::CHECKPOINT_NEVER;
}

std::string RestartsIn(absl::Duration delay, std::string_view number, const v1::Failure& failure) {
  return absl::StrCat("restarts in ", absl::ToInt64Seconds(delay), " s", AbslView(number), ": ", failure.message());
}

}  // namespace

AfterFailure JudgeFailure(const v1::Job& job, const v1::Failure& failure) {
  if (CanKeepLess(job, failure)) {
    return {.restarts_in = absl::ZeroDuration(),
            .counts = false,
            .why = absl::StrCat("goes on with pipeline.checkpoint: except_last, as all activations are too much: ",
                                failure.message())};
  }
  const int most = MaxRestarts(job.spec());
  if (!IsRestarted(failure.code()) || most == 0) return {.restarts_in = std::nullopt, .why = failure.message()};
  if (IsTheSameStep(job.last_failure(), failure)) {
    return {.restarts_in = std::nullopt,
            .why = absl::StrCat("step ", failure.step(), " has failed on two workers: ", failure.message(),
                                "; in the attempt before: ", job.last_failure().message())};
  }
  if (!CountsAsRestart(failure.code())) {
    return {.restarts_in = RestartDelay(1), .counts = false, .why = RestartsIn(RestartDelay(1), "", failure)};
  }
  if (job.restarts() >= most) {
    return {.restarts_in = std::nullopt,
            .why = absl::StrCat(failure.message(), "; it has restarted ", job.restarts(),
                                job.restarts() == 1 ? " time" : " times", ", as often as max_restarts allows")};
  }
  const absl::Duration delay = RestartDelay(job.restarts() + 1);
  return {.restarts_in = delay,
          .why = RestartsIn(delay, absl::StrCat(" (", job.restarts() + 1, " of ", most, ")"), failure)};
}

int MaxRestarts(const v1::JobSpec& spec) {
  return spec.has_max_restarts() ? spec.max_restarts() : spec::kDefaultMaxRestarts;
}

// The last one's evaluation may be what fails.
int64_t StepUnderWay(const v1::Job& job) {
  if (job.state() != v1::Job::STATE_RUNNING && job.state() != v1::Job::STATE_PAUSED) return 0;
  const bool trains = job.spec().has_train();
  const int64_t done = trains ? job.steps_done() : job.rounds_done();
  return std::min(done + 1, trains ? job.steps_total() : job.rounds_total());
}

absl::Duration RestartDelay(int restart) {
  const int doublings = std::clamp(restart - 1, 0, 6);
  return std::min(absl::Seconds(1 << doublings), kLongestRestartDelay);
}

std::string RestartNumber(const v1::Job& job) {
  if (!CountsAsRestart(job.last_failure().code())) return "restart";
  return absl::StrCat("restart ", job.restarts(), " of ", MaxRestarts(job.spec()));
}

}  // namespace gpipe::orchestrator
