#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_PLAN_MAKER_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_PLAN_MAKER_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/plan.pb.h"
#include "orchestrator/cluster/background.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/link_meter.h"
#include "orchestrator/scheduling/spec_checker.h"

namespace gpipe::orchestrator {

// All that a plan is made from, by value: it is made while its job, and the workers, may change.
struct PlanInput {
  v1::JobSpec spec;
  InputFacts facts;
  LayerInfos layers;
  std::map<std::string, LayerInfos> measured = {};  // By kind of worker; of all hosts' kinds, or the layers were not.
  std::vector<v1::Hello> hosts = {};                // One per worker.
  Links links = {};                                 // Between each host and the next; empty: not known.
  int64_t first_step = 0;
  bool ran_out_of_memory = false;  // The attempt before: less is kept where the spec leaves that open.
};

struct MadePlan {
  v1::Plan plan;
  v1::Checkpoint checkpoint = v1::CHECKPOINT_UNSPECIFIED;  // As the spec says, or as was chosen (ChooseCheckpoint).
  std::optional<v1::Forecast> forecast;                    // Where its layers were measured.
};

// Cuts the layers, plans, and plays the plan through. Pure; for 64 stages and a thousand micro-batches it takes
// seconds. INVALID_ARGUMENT by field; RESOURCE_EXHAUSTED: the hosts have too little memory.
absl::StatusOr<MadePlan> MakeWholePlan(const PlanInput& input);

// The same beside the event loop, which must not stand still for it: grants run a fraction of a second ahead.
class PlanMaker {
 public:
  using Callback = std::function<void(absl::StatusOr<MadePlan>)>;

  // Both must outlive the maker.
  PlanMaker(EventLoop* loop, Background* plans) : loop_(loop), plans_(plans) {}

  // Calls `done` on the loop, later. UNAVAILABLE: too many plans wait.
  void Make(PlanInput input, Callback done);

 private:
  EventLoop* const loop_;
  Background* const plans_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_PLAN_MAKER_H_
