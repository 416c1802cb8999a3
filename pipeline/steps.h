#ifndef GPIPE_PIPELINE_STEPS_H_
#define GPIPE_PIPELINE_STEPS_H_

#include <optional>
#include <vector>

#include "pipeline/schedule.h"

namespace gpipe::pipeline {

// What a worker does in one go: an action of its row, or several SENDs or RECVs that are one transfer, because they
// move values of one micro-batch between the same two stages.
struct Step {
  Action action;           // Of a transfer: the first.
  std::vector<int> edges;  // Of a transfer: of all its values, ascending.
};

// A row in steps. Of transfers with nothing but transfers in between, those of one kind and micro-batch between the
// same stages are one. Both ends of a boundary go by this rule, and so agree on what one transfer is. REQUIRES:
// transfers name edges that are there.
std::vector<Step> JoinTransfers(const std::vector<Edge>& edges, const std::vector<Action>& row);

// The first transfer of values that others of the same micro-batch and boundary are apart from, which the other end
// would wait for at once; nullopt: there is none.
std::optional<Action> FindApart(const std::vector<Edge>& edges, const std::vector<Step>& steps);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_STEPS_H_
