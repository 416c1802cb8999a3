#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_STEP_COLLECTOR_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_STEP_COLLECTOR_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// Puts together what the workers of an attempt report of each round into the step's metrics. Pure; one thread.
class StepCollector {
 public:
  StepCollector(const v1::Plan& plan, int workers);

  // Set when this was the last worker's report of a training or inference round. INVALID_ARGUMENT when it makes no
  // sense: a round reported twice, a stage that is not the worker's.
  absl::StatusOr<std::optional<v1::StepMetrics>> Add(int worker, const v1::RoundDone& round);

 private:
  struct Partial {
    int reports = 0;
    int64_t samples = 0;
    int64_t wall_nanos = 0;
    int64_t data_wait_nanos = 0;
    std::vector<int64_t> busy_nanos;                                    // By stage.
    std::vector<google::protobuf::RepeatedField<double>> grad_squares;  // By stage, and by layer of it.
    v1::StepMetrics metrics;
  };

  absl::Status Check(int worker, const v1::RoundDone& round) const;
  int64_t MostSamples() const;
  void AddDevicePeaks(const v1::StageReport& report, v1::StepMetrics& metrics) const;
  Partial& PartialOf(int64_t round);
  void Merge(const v1::RoundDone& round, Partial& partial) const;
  v1::StepMetrics Finish(Partial& partial) const;
  static double GradientNorm(const Partial& partial);

  const v1::Plan& plan_;
  const int workers_;
  std::vector<int64_t> last_round_;      // By worker; -1 before the first.
  std::map<int64_t, Partial> partials_;  // By round; as many as the window is wide.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_STEP_COLLECTOR_H_
