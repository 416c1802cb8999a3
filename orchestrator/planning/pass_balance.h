#ifndef GPIPE_ORCHESTRATOR_PLANNING_PASS_BALANCE_H_
#define GPIPE_ORCHESTRATOR_PLANNING_PASS_BALANCE_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"

namespace gpipe::orchestrator {

// Seconds of a micro-batch in one of the two passes.
struct PassSeconds {
  std::vector<std::vector<double>> layers;  // By stage, and by layer on that stage.
  std::vector<double> sending;              // By stage.
};

struct StepSeconds {
  PassSeconds forward;
  PassSeconds backward;  // With what is computed again.
};

// GPipe's schedule does all forward passes of a mini-batch, then all backward ones, so that a step takes as long as the
// slowest forward and the slowest backward, (micro-batches + stages - 1) times; they may be of two stages. A cut whose
// slowest stage is fastest in both together need not be the fastest: a head and its loss are long in the forward pass.

// Of a cut: the slowest forward and the slowest backward together.
double SlowestPasses(const StepSeconds& seconds, const std::vector<int64_t>& balance);

// Moves one border of the cut after the other, to where a step is fastest, until none can be moved; to no place where
// `allowed` does not allow the cut. Returns `balance`, or a cut that is faster; with more than two stages there may be
// one that is faster still, which no single border leads to.
std::vector<int64_t> BalancePasses(const StepSeconds& seconds, const std::vector<int64_t>& balance,
                                   absl::FunctionRef<bool(const std::vector<int64_t>&)> allowed);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_PASS_BALANCE_H_
