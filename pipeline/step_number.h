#ifndef GPIPE_PIPELINE_STEP_NUMBER_H_
#define GPIPE_PIPELINE_STEP_NUMBER_H_

#include <cstdint>
#include <string>

#include "pipeline/timeline.h"

namespace gpipe::pipeline {

// How users count, wherever they read a number: steps from 1, so that step N, its line of metrics, the evaluation after
// it and the checkpoint of it have one number, that of the steps done. In inference mini-batches are counted so.
int64_t StepNumber(const Round& round);

// `step 3`, `batch 3`, `the evaluation after step 8`, `the checkpoint of step 8`, `the look at the loss`.
std::string NameOf(const Round& round);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_STEP_NUMBER_H_
