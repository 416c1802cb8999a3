#ifndef GPIPE_PIPELINE_PLACEMENT_H_
#define GPIPE_PIPELINE_PLACEMENT_H_

#include <vector>

#include "absl/status/status.h"

namespace gpipe::pipeline {

// INVALID_ARGUMENT unless `stage_worker` names one worker for each of `stages` stages, ascending from 0 without gaps.
absl::Status CheckPlacement(const std::vector<int>& stage_worker, int stages);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_PLACEMENT_H_
