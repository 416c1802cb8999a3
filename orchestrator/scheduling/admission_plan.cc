// The half of the admission that answers how a spec would be cut and run.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/plan/convert.h"
#include "common/status_macros.h"
#include "orchestrator/planning/balance.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/planner.h"
#include "orchestrator/scheduling/admission.h"
#include "pipeline/schedule.h"

namespace gpipe::orchestrator {
namespace {

absl::Status NoWorker() {
  return WithReason(
      absl::FailedPreconditionError("planning needs a worker that looks at the model, and none is connected; start one "
                                    "with gpipe-worker --orchestrator HOST:PORT"),
      reason::kNoWorker);
}

// What the checks have found that the job's owner may want to know, whichever way the plan is made.
void AddNotes(const CheckedSpec& checked, v1::PlanJobResponse& response) {
  response.mutable_notes()->Add(checked.notes.begin(), checked.notes.end());
  if (!checked.weights.ok()) response.add_notes(std::string(checked.weights.message()));
}

void FillResponse(MadePlan made, v1::PlanJobResponse& response) {
  const v1::Program& program = made.plan.programs(0);
  const int workers = *std::ranges::max_element(made.plan.stage_worker()) + 1;
  response.set_bubble_share(pipeline::BubbleShare(workers, program.micro_batch_sizes_size()));
  response.set_grid(pipeline::RenderGrid(ScheduleOf(made.plan, program)));
  if (made.forecast.has_value()) *response.mutable_forecast() = *std::move(made.forecast);
  *response.mutable_plan() = std::move(made.plan);
}

}  // namespace

void Admission::Plan(const v1::PlanJobRequest& request, const v1::JobSpec& spec, PlanCallback done) {
  if (!closed_.ok()) return done(closed_);
  const uint64_t id = next_id_++;
  const FileMap files(request.files().begin(), request.files().end());
  plannings_.emplace(id, Planning{.spec = spec,
                                  .files = files,
                                  .workers = request.workers(),
                                  .validate_only = request.validate_only(),
                                  .done = std::move(done)});
  parts_.checker->Check(spec, files, /*resume=*/std::nullopt,
                        [this, id](absl::StatusOr<CheckedSpec> checked) { OnPlanChecked(id, std::move(checked)); });
}

void Admission::OnPlanChecked(uint64_t id, absl::StatusOr<CheckedSpec> checked) {
  auto found = plannings_.find(id);
  if (found == plannings_.end()) return;
  if (!checked.ok()) return FinishPlan(id, checked.status());
  if (!checked->layers.has_value()) {
    const bool alone = parts_.cluster->registry().Connected(found->second.spec.pipeline().device()).empty();
    return FinishPlan(id, alone ? NoWorker() : checked->undescribed);
  }
  Planning& planning = found->second;
  if (planning.validate_only && !checked->weights.ok()) return FinishPlan(id, checked->weights);
  planning.checked = *std::move(checked);
  planning.spec = planning.checked.spec;
  planning.files = planning.checked.files;
  planning.hosts = HostsFor(planning);
  if (planning.hosts.empty()) return FinishPlan(id, NoWorker());
  if (planning.validate_only) return RespondUnmeasured(id);
  MeasureThenRespond(id);
}

// What the checks have found alone: the layers, and how they are cut unless that takes measured times.
void Admission::RespondUnmeasured(uint64_t id) {
  const Planning& planning = plannings_.at(id);
  const LayerInfos& layers = *planning.checked.layers;
  if (!NeedsMeasuring(planning.spec, static_cast<int>(layers.size()), static_cast<int>(planning.hosts.size()))) {
    return Respond(id);
  }
  v1::PlanJobResponse response;
  AddNotes(planning.checked, response);
  response.mutable_plan()->mutable_layers()->Assign(layers.begin(), layers.end());
  FinishPlan(id, response);
}

// One kind of worker after the other, then the answer.
void Admission::MeasureThenRespond(uint64_t id) {
  auto found = plannings_.find(id);
  if (found == plannings_.end()) return;
  const Planning& planning = found->second;
  const size_t layers = planning.checked.layers->size();
  const auto is_measured = [&](const v1::Hello& host) { return planning.measured.contains(KindOf(host)); };
  const auto next = std::find_if_not(planning.hosts.begin(), planning.hosts.end(), is_measured);
  // Of an exported model nobody knows by heart what a stage takes, even of a cut that is given.
  const bool needed = planning.spec.model().has_exported() ||
                      NeedsMeasuring(planning.spec, static_cast<int>(layers), static_cast<int>(planning.hosts.size()));
  if (!needed || next == planning.hosts.end()) return Respond(id);
  parts_.profiler->Measure(MakeInspect(planning.spec, planning.checked.facts, planning.files, /*measure=*/true),
                           KindOf(*next), layers, absl::StrCat("a plan of ", planning.spec.name()),
                           [this, id, kind = KindOf(*next)](absl::StatusOr<LayerInfos> measured) {
                             if (!plannings_.contains(id)) return;
                             if (!measured.ok()) return FinishPlan(id, measured.status());
                             plannings_.at(id).measured[kind] = *std::move(measured);
                             MeasureThenRespond(id);
                           });
}

// As many workers as are asked for; else as the spec asks for; else as are connected. Connected ones, idle ones first,
// on the device that the job would get; where they are too few, the last one stands for the missing ones.
std::vector<v1::Hello> Admission::HostsFor(const Planning& planning) const {
  const v1::JobSpec& spec = planning.spec;
  const int64_t stages = std::min<int64_t>(MostStages(spec), static_cast<int64_t>(planning.checked.layers->size()));
  int64_t wanted = planning.workers;
  if (wanted == 0) wanted = spec.pipeline().workers();
  if (wanted == 0 && FixedStages(spec) > 0) wanted = stages;
  const std::vector<WorkerEntry*> connected = Connected(spec.pipeline().device(), wanted);
  if (connected.empty()) return {};
  if (wanted == 0) wanted = static_cast<int64_t>(connected.size());
  wanted = std::clamp<int64_t>(wanted, 1, stages);
  std::vector<v1::Hello> hosts;
  for (int64_t i = 0; i < wanted; ++i) {
    hosts.push_back(connected[std::min<size_t>(i, connected.size() - 1)]->hello);
  }
  return hosts;
}

// Of the best device that has enough of them; of the best one that has any when none has.
std::vector<WorkerEntry*> Admission::Connected(v1::Device device, int64_t wanted) const {
  std::vector<WorkerEntry*> best;
  for (const v1::Device one : DevicesFor(device)) {
    std::vector<WorkerEntry*> connected = parts_.cluster->registry().Connected(one);
    std::stable_partition(connected.begin(), connected.end(),
                          [](const WorkerEntry* worker) { return worker->state == v1::Worker::STATE_IDLE; });
    const bool enough = !connected.empty() && static_cast<int64_t>(connected.size()) >= wanted;
    if (enough || best.empty()) best = std::move(connected);
    if (enough) break;
  }
  return best;
}

void Admission::Respond(uint64_t id) {
  const Planning& planning = plannings_.at(id);
  PlanInput input{.spec = planning.spec, .facts = planning.checked.facts, .layers = *planning.checked.layers};
  input.measured = planning.measured;
  input.hosts = planning.hosts;
  if (!planning.measured.empty()) input.links = parts_.scheduler->links().Find(planning.hosts).value_or(Links{});
  parts_.planner->Make(std::move(input), [this, id](absl::StatusOr<MadePlan> made) {
    if (!plannings_.contains(id)) return;
    if (!made.ok()) return FinishPlan(id, made.status());
    v1::PlanJobResponse response;
    AddNotes(plannings_.at(id).checked, response);
    FillResponse(*std::move(made), response);
    FinishPlan(id, std::move(response));
  });
}

void Admission::FinishPlan(uint64_t id, absl::StatusOr<v1::PlanJobResponse> response) {
  auto node = plannings_.extract(id);
  if (node.empty()) return;
  if (!response.ok()) response = OfSpec(response.status());
  node.mapped().done(std::move(response));
}

}  // namespace gpipe::orchestrator
