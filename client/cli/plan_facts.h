#ifndef GPIPE_CLIENT_CLI_PLAN_FACTS_H_
#define GPIPE_CLIENT_CLI_PLAN_FACTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// What a plan says, added up as its table and its drawing show it. A plan from elsewhere may be incomplete.

// What a job that has been placed says of its plan: the stages with their workers, the kinds of its layers, the clock
// cycles of a full mini-batch as if all stages had something to train, and the forecast; nothing of parameters, and of
// what crosses. Of one that has not, nothing.
v1::PlanJobResponse PlanOf(const v1::Job& job);

bool IsExported(const v1::Plan& plan);

// Whether parameters and what crosses are known.
bool IsWeighed(const v1::Plan& plan);

std::vector<const v1::LayerInfo*> LayersOf(const v1::Plan& plan, const v1::Stage& stage);

struct StageTotals {
  int64_t parameters = 0;
  int64_t parameter_bytes = 0;
  int64_t sent_bytes = 0;  // Values that leave it, of one micro-batch.
};
StageTotals TotalsOf(const v1::Plan& plan, int stage);

// -1: not said.
int WorkerOf(const v1::Plan& plan, int stage);

// null: not foreseen.
const v1::StageForecast* ForecastOf(const v1::PlanJobResponse& response, int stage);
int64_t MemoryOf(const v1::StageForecast& stage);
// Forward and backward of one micro-batch.
double SecondsOf(const v1::StageForecast& stage);

// The program that the job spends its time in, the one of the largest mini-batch; null when there is none.
const v1::Program* MainProgram(const v1::Plan& plan);
// Of the main program; 0 without.
int64_t LargestMicroBatch(const v1::Plan& plan);
// Of one such micro-batch.
int64_t BytesOf(const v1::Plan& plan, const v1::Edge& edge);

// Its value passes stages that do not use it.
bool IsSkip(const v1::Edge& edge);

// A tensor of several names or stages.
struct TiedTensor {
  std::vector<std::string> names;
  std::vector<int> stages;  // Ascending.
};
std::vector<TiedTensor> TiedTensors(const v1::Plan& plan);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_PLAN_FACTS_H_
