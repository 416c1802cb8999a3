// The half of the admission that answers how a spec would be cut and run.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/plan/convert.h"
#include "common/status_macros.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/planner.h"
#include "orchestrator/scheduling/admission.h"
#include "pipeline/schedule.h"

namespace gpipe::orchestrator {
namespace {

absl::StatusOr<v1::PlanJobResponse> Respond(const v1::JobSpec& spec, const InputFacts& facts, const LayerInfos& layers,
                                            int workers) {
  PlanRequest request{.spec = spec, .facts = facts, .layers = layers, .balance = {}, .workers = workers};
  GPIPE_ASSIGN_OR_RETURN(request.balance, Balance(spec, facts, layers, workers, /*memory_bytes=*/0));
  v1::PlanJobResponse response;
  GPIPE_ASSIGN_OR_RETURN(*response.mutable_plan(), MakePlan(request));
  const v1::Program& program = response.plan().programs(0);
  response.set_bubble_share(pipeline::BubbleShare(workers, program.micro_batch_sizes_size()));
  response.set_grid(pipeline::RenderGrid(ScheduleOf(response.plan(), program)));
  response.mutable_forecast()->set_step_seconds(PredictStepSeconds(spec, response.plan()));
  return response;
}

}  // namespace

void Admission::Plan(const v1::PlanJobRequest& request, const v1::JobSpec& spec, PlanCallback done) {
  if (!closed_.ok()) return done(closed_);
  const uint64_t id = next_id_++;
  const FileMap files(request.files().begin(), request.files().end());
  plannings_.emplace(
      id, Planning{.spec = spec, .files = files, .workers = request.workers(), .checked = {}, .done = std::move(done)});
  parts_.checker->Check(spec, files,
                        [this, id](absl::StatusOr<CheckedSpec> checked) { OnPlanChecked(id, std::move(checked)); });
}

void Admission::OnPlanChecked(uint64_t id, absl::StatusOr<CheckedSpec> checked) {
  auto found = plannings_.find(id);
  if (found == plannings_.end()) return;
  if (!checked.ok()) return FinishPlan(id, checked.status());
  if (!checked->layers.has_value()) {
    return FinishPlan(id, absl::UnavailableError("planning needs a worker that looks at the model, and none is "
                                                 "connected; start one with gpipe-worker --orchestrator HOST:PORT"));
  }
  Planning& planning = found->second;
  planning.checked = *std::move(checked);
  const int workers = WorkersToPlanFor(planning);
  const int layers = static_cast<int>(planning.checked.layers->size());
  if (NeedsMeasuring(planning.spec, layers, workers)) return Measure(id, workers);
  FinishPlan(id, Respond(planning.spec, planning.checked.facts, *planning.checked.layers, workers));
}

void Admission::Measure(uint64_t id, int workers) {
  const Planning& planning = plannings_.at(id);
  parts_.cluster->inspector().Inspect(
      MakeInspect(planning.spec, planning.checked.facts, planning.files, /*measure=*/true),
      planning.spec.pipeline().device(), Scheduler::kMeasureTimeout,
      [this, id, workers](absl::StatusOr<LayerInfos> layers) {
        auto found = plannings_.find(id);
        if (found == plannings_.end()) return;
        if (!layers.ok()) return FinishPlan(id, layers.status());
        FinishPlan(id, Respond(found->second.spec, found->second.checked.facts, *layers, workers));
      });
}

// Those asked for; else those the spec asks for; else as many as are connected.
int Admission::WorkersToPlanFor(const Planning& planning) const {
  const v1::JobSpec& spec = planning.spec;
  const int64_t stages = std::min<int64_t>(MostStages(spec), static_cast<int64_t>(planning.checked.layers->size()));
  int64_t workers = planning.workers;
  if (workers == 0) workers = spec.pipeline().workers();
  if (workers == 0 && FixedStages(spec) > 0) workers = stages;
  if (workers == 0) {
    for (const WorkerEntry* worker : parts_.cluster->registry().All()) {
      if (worker->connected() && Suits(*worker, spec.pipeline().device())) ++workers;
    }
  }
  return static_cast<int>(std::clamp<int64_t>(workers, 1, stages));
}

void Admission::FinishPlan(uint64_t id, absl::StatusOr<v1::PlanJobResponse> response) {
  auto node = plannings_.extract(id);
  if (!node.empty()) node.mapped().done(std::move(response));
}

}  // namespace gpipe::orchestrator
