#ifndef GPIPE_ORCHESTRATOR_PLANNING_STATISTICS_CHECK_H_
#define GPIPE_ORCHESTRATOR_PLANNING_STATISTICS_CHECK_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "orchestrator/artifacts/input_check.h"

namespace gpipe::orchestrator {

// Whether every micro-batch that the job trains on gives each batch normalisation of these layers more than one value
// per channel: the variance of one value is no number, which would stay in the model. INVALID_ARGUMENT names the field
// that makes a micro-batch too small, and says what would not. Pure; any thread.
absl::Status CheckStatistics(const v1::JobSpec& spec, const InputFacts& facts,
                             const std::vector<v1::LayerInfo>& layers);

// The same of a mini-batch of one size.
absl::Status CheckStatistics(const v1::JobSpec& spec, int64_t batch_size, const std::vector<v1::LayerInfo>& layers);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_STATISTICS_CHECK_H_
