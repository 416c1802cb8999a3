#include "orchestrator/planning/checkpoint_choice.h"

#include <vector>

#include "common/status_macros.h"
#include "orchestrator/planning/balance.h"

namespace gpipe::orchestrator {
namespace {

// What a micro-batch adds to a step under the best cut; RESOURCE_EXHAUSTED: there is none that fits.
absl::StatusOr<double> BestSeconds(const PlanRequest& request, v1::Checkpoint checkpoint) {
  v1::JobSpec spec = request.spec;
  spec.mutable_pipeline()->set_checkpoint(checkpoint);
  const PlanRequest decided{.spec = spec,
                            .facts = request.facts,
                            .layers = request.layers,
                            .workers = request.workers,
                            .profiles = request.profiles,
                            .links = request.links,
                            .memory_bytes = request.memory_bytes};
  GPIPE_ASSIGN_OR_RETURN(const std::vector<int64_t> balance, Balance(decided));
  return SecondsPerMicroBatch(decided, balance);
}

}  // namespace

v1::Checkpoint ChooseCheckpoint(const PlanRequest& request) {
  if (request.spec.pipeline().checkpoint() != v1::CHECKPOINT_AUTO) return request.spec.pipeline().checkpoint();
  const bool measured = !request.profiles.empty() &&
                        NeedsMeasuring(request.spec, static_cast<int>(request.layers.size()), request.workers);
  if (!request.spec.has_train() || !request.may_keep_all || !measured) return v1::CHECKPOINT_EXCEPT_LAST;
  const absl::StatusOr<double> never = BestSeconds(request, v1::CHECKPOINT_NEVER);
  if (!never.ok()) return v1::CHECKPOINT_EXCEPT_LAST;
  const absl::StatusOr<double> again = BestSeconds(request, v1::CHECKPOINT_EXCEPT_LAST);
  return again.ok() && *again < *never ? v1::CHECKPOINT_EXCEPT_LAST : v1::CHECKPOINT_NEVER;
}

}  // namespace gpipe::orchestrator
