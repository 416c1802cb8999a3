#include "orchestrator/scheduling/plan_maker.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/status_macros.h"
#include "orchestrator/planning/balance.h"
#include "orchestrator/planning/checkpoint_choice.h"
#include "orchestrator/planning/forecast.h"
#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {
namespace {

// What the planner may know of the workers.
void Describe(const PlanInput& input, PlanRequest& request) {
  request.workers = static_cast<int>(input.hosts.size());
  const auto is_measured = [&](const v1::Hello& host) { return input.measured.contains(KindOf(host)); };
  const bool measured = std::ranges::all_of(input.hosts, is_measured);
  for (const v1::Hello& host : input.hosts) {
    request.memory_bytes.push_back(UsableMemory(host));
    if (measured) request.profiles.push_back(&input.measured.at(KindOf(host)));
  }
  request.links = input.links;
  request.first_step = input.first_step;
  // The workers of one host share its memory, and others do: a GPU's is its worker's.
  request.may_keep_all = !input.ran_out_of_memory && std::ranges::all_of(input.hosts, IsCuda);
}

}  // namespace

absl::StatusOr<MadePlan> MakeWholePlan(const PlanInput& input) {
  v1::JobSpec spec = input.spec;  // Without what it leaves open.
  PlanRequest request{.spec = spec, .facts = input.facts, .layers = input.layers};
  Describe(input, request);
  MadePlan made;
  made.checkpoint = ChooseCheckpoint(request);
  spec.mutable_pipeline()->set_checkpoint(made.checkpoint);
  GPIPE_ASSIGN_OR_RETURN(request.balance, Balance(request));
  GPIPE_ASSIGN_OR_RETURN(made.plan, MakePlan(request));
  if (!IsMeasured(made.plan)) return made;
  GPIPE_ASSIGN_OR_RETURN(made.forecast,
                         MakeForecast(spec, made.plan, request.links, std::ranges::all_of(input.hosts, IsCuda)));
  return made;
}

void PlanMaker::Make(PlanInput input, Callback done) {
  // Shared, because std::function copies; the plan of a large job is large.
  const auto shared = std::make_shared<const PlanInput>(std::move(input));
  const bool taken = plans_->Run([loop = loop_, shared, done] {
    auto made = std::make_shared<absl::StatusOr<MadePlan>>(MakeWholePlan(*shared));
    loop->Post([made, done] { done(std::move(*made)); });
  });
  if (!taken) loop_->Post([done] { done(absl::UnavailableError("too many plans wait to be made")); });
}

}  // namespace gpipe::orchestrator
