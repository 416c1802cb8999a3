#include "orchestrator/scheduling/stage_collector.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gpipe::orchestrator {
namespace {

void AddTime(const v1::ActionDone& action, v1::StageDone& stage) {
  const double seconds = static_cast<double>(action.nanos()) * 1e-9;
  switch (action.kind()) {
    case v1::ACTION_KIND_FORWARD:
      return stage.set_forward(stage.forward() + seconds);
    case v1::ACTION_KIND_BACKWARD:
      return stage.set_backward(stage.backward() + seconds);
    case v1::ACTION_KIND_RECOMPUTE:
      return stage.set_recompute(stage.recompute() + seconds);
    case v1::ACTION_KIND_OPTIMIZER:
      return stage.set_optimizer(stage.optimizer() + seconds);
    default:
      return;
  }
}

double BusySeconds(const v1::StageDone& stage) {
  return stage.forward() + stage.backward() + stage.recompute() + stage.optimizer();
}

}  // namespace

StageCollector::StageCollector(const v1::Plan& plan, std::vector<std::string> workers)
    : plan_(plan), workers_(std::move(workers)) {}

absl::Status StageCollector::Add(int worker, const v1::ActionDone& action) {
  const int stage = action.stage();
  if (stage < 0 || stage >= plan_.stage_worker_size() || plan_.stage_worker(stage) != worker) {
    return absl::InvalidArgumentError(absl::StrCat("an action of stage ", stage, " is not this worker's"));
  }
  Partial& partial = PartialOf(action.round());
  AddTime(action, partial.stages[stage]);
  Keep(worker, action, partial);
  return absl::OkStatus();
}

void StageCollector::Keep(int worker, const v1::ActionDone& action, Partial& partial) {
  if (partial.too_many) return;
  if (kept_ == kMaxActions) {
    partial.too_many = true;
    partial.actions.assign(workers_.size(), {});
    kept_ -= std::exchange(partial.kept, 0);
    return;
  }
  partial.actions[worker].push_back({.start_nanos = action.start_nanos(),
                                     .nanos = action.nanos(),
                                     .cycle = action.cycle(),
                                     .stage = action.stage(),
                                     .micro_batch = action.micro_batch(),
                                     .kind = action.kind()});
  ++partial.kept;
  ++kept_;
}

absl::StatusOr<std::optional<StepDetail>> StageCollector::Add(int worker, const v1::RoundDone& round) {
  for (const v1::PeerTraffic& peer : round.traffic()) {
    if (peer.worker() < 0 || static_cast<size_t>(peer.worker()) >= workers_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("it has no traffic with a worker ", peer.worker()));
    }
  }
  Partial& partial = PartialOf(round.round());
  partial.wall_nanos = std::max(partial.wall_nanos, round.wall_nanos());
  for (int stage = 0; stage < plan_.stage_worker_size(); ++stage) {
    if (plan_.stage_worker(stage) == worker) *partial.stages[stage].mutable_traffic() = round.traffic();
  }
  for (const v1::StageReport& report : round.stages()) {
    if (report.stage() < 0 || report.stage() >= plan_.stage_worker_size()) continue;  // StepCollector refuses it.
    partial.stages[report.stage()].set_peak_saved_bytes(report.peak_saved_bytes());
  }
  if (++partial.reports < workers_.size()) return std::nullopt;
  auto node = partials_.extract(round.round());
  kept_ -= node.mapped().kept;
  StepDetail detail = Finish(std::move(node.mapped()));
  detail.round = round.round();
  return detail;
}

StageCollector::Partial& StageCollector::PartialOf(int64_t round) {
  auto [found, inserted] = partials_.try_emplace(round);
  if (inserted) {
    found->second.stages.resize(static_cast<size_t>(plan_.stage_worker_size()));
    found->second.actions.resize(workers_.size());
  }
  return found->second;
}

StepDetail StageCollector::Finish(Partial partial) const {
  std::vector<double> busy(workers_.size());
  for (int stage = 0; stage < plan_.stage_worker_size(); ++stage) {
    busy[plan_.stage_worker(stage)] += BusySeconds(partial.stages[stage]);
  }
  StepDetail detail;
  for (int stage = 0; stage < plan_.stage_worker_size(); ++stage) {
    const int worker = plan_.stage_worker(stage);
    v1::StageDone& done = *detail.stages.add_stages();
    done = std::move(partial.stages[stage]);
    done.set_stage(stage);
    done.set_worker(workers_[worker]);
    done.set_idle(std::max(0.0, static_cast<double>(partial.wall_nanos) * 1e-9 - busy[worker]));
    std::stable_sort(done.mutable_traffic()->begin(), done.mutable_traffic()->end(),
                     [](const auto& a, const auto& b) { return a.wait_nanos() > b.wait_nanos(); });
  }
  detail.actions.reserve(partial.kept);
  for (const auto& actions : partial.actions) {
    detail.actions.insert(detail.actions.end(), actions.begin(), actions.end());
  }
  return detail;
}

}  // namespace gpipe::orchestrator
