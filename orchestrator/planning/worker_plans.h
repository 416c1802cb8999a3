#ifndef GPIPE_ORCHESTRATOR_PLANNING_WORKER_PLANS_H_
#define GPIPE_ORCHESTRATOR_PLANNING_WORKER_PLANS_H_

#include <set>
#include <string>

#include "gpipe/v1/plan.pb.h"

namespace gpipe::orchestrator {

// A plan as each of its workers gets it: the worker's own row of every program, the others being empty, and its own
// layers in full, and no timeline: it is told its rounds. Of other layers it gets what it needs to find its place among
// them: their first nodes, the tensors that several workers have, and the model's outputs. So what all workers get
// grows with the plan, not with the plan times the workers. Pure; any thread.
class WorkerPlans {
 public:
  // Keeps a reference to the plan, which is afterwards as it was before.
  explicit WorkerPlans(v1::Plan& plan);

  v1::Plan For(int worker) const;

 private:
  v1::LayerInfo Outline(const v1::LayerInfo& layer) const;

  const v1::Plan& plan_;
  std::set<std::string> shared_;  // Tensors that several workers have.
  v1::Plan outline_;              // What every worker gets.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_WORKER_PLANS_H_
