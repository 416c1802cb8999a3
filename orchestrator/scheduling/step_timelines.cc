#include "orchestrator/scheduling/step_timelines.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pipeline/schedule.h"

namespace gpipe::orchestrator {
namespace {

v1::StepTimeline FrameOf(const v1::Job& job) {
  v1::StepTimeline frame;
  frame.set_job(job.id());
  frame.set_attempt(job.attempt());
  *frame.mutable_workers() = job.workers();
  *frame.mutable_stage_worker() = job.stage_worker();
  if (job.has_forecast()) *frame.mutable_forecast() = job.forecast();
  return frame;
}

int MicroBatchesIn(const std::vector<DoneAction>& actions) {
  int last = 0;
  for (const DoneAction& action : actions) last = std::max(last, action.micro_batch);
  return last + 1;
}

}  // namespace

void StepTimelines::Add(const v1::Job& job, const v1::StepMetrics& metrics, StepDetail detail) {
  if (attempt_.job().empty() || attempt_.attempt() != job.attempt()) {
    steps_.clear();
    actions_ = 0;
    attempt_ = FrameOf(job);
  }
  std::vector<DoneAction>& actions = detail.actions;
  std::stable_sort(actions.begin(), actions.end(),
                   [](const DoneAction& a, const DoneAction& b) { return a.start_nanos < b.start_nanos; });
  actions_ += actions.size();
  steps_.push_back({.round = detail.round, .metrics = metrics, .actions = std::move(actions)});
  while (steps_.size() > kMaxSteps || (actions_ > kMaxActions && steps_.size() > 1)) DropOldest();
}

void StepTimelines::DropOldest() {
  actions_ -= steps_.front().actions.size();
  steps_.pop_front();
}

absl::StatusOr<v1::StepTimeline> StepTimelines::Get(int64_t step) const {
  const Step* found = Find(step);
  if (found == nullptr) return NotKept(step);
  if (!found->actions.empty()) return Describe(*found);
  return absl::NotFoundError(absl::StrCat("step ", found->metrics.step(), " had more actions than are kept"));
}

const StepTimelines::Step* StepTimelines::Find(int64_t step) const {
  if (steps_.empty()) return nullptr;
  if (step == 0) return &steps_.back();
  const auto found =
      std::find_if(steps_.begin(), steps_.end(), [step](const Step& kept) { return kept.metrics.step() == step; });
  return found == steps_.end() ? nullptr : &*found;
}

absl::Status StepTimelines::NotKept(int64_t step) const {
  if (steps_.empty()) return absl::NotFoundError("it has done no step since the orchestrator was started");
  return absl::NotFoundError(absl::StrCat("no timeline is kept of step ", step, ", but of steps ",
                                          steps_.front().metrics.step(), " to ", steps_.back().metrics.step()));
}

v1::StepTimeline StepTimelines::Describe(const Step& step) const {
  v1::StepTimeline timeline = attempt_;
  timeline.set_step(step.metrics.step());
  timeline.set_step_seconds(step.metrics.step_seconds());
  timeline.set_bubble_share(step.metrics.bubble_share());
  timeline.set_ideal_bubble_share(pipeline::BubbleShare(timeline.workers_size(), MicroBatchesIn(step.actions)));
  timeline.set_first_kept(steps_.front().metrics.step());
  timeline.set_last_kept(steps_.back().metrics.step());
  const int64_t begin = step.actions.front().start_nanos;
  timeline.mutable_actions()->Reserve(static_cast<int>(step.actions.size()));
  for (const DoneAction& action : step.actions) {
    v1::ActionDone& done = *timeline.add_actions();
    done.set_round(step.round);
    done.set_cycle(action.cycle);
    done.set_stage(action.stage);
    done.set_kind(static_cast<v1::ActionKind>(action.kind));
    done.set_micro_batch(action.micro_batch);
    done.set_nanos(action.nanos);
    done.set_start_nanos(action.start_nanos - begin);
  }
  return timeline;
}

}  // namespace gpipe::orchestrator
