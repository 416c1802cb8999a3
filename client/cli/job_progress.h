#ifndef GPIPE_CLIENT_CLI_JOB_PROGRESS_H_
#define GPIPE_CLIENT_CLI_JOB_PROGRESS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// Time left at the pace so far; nullopt while there is no pace to go by. Never negative.
std::optional<absl::Duration> Eta(int64_t done_at_start, int64_t done, int64_t total, absl::Duration elapsed);

// A warning for who watches the job's progress. What workers log is for `gpipe job logs`.
bool IsNews(const v1::JobEvent& event);

// What a viewer knows of a job, fed by its watch stream. Not for use by two threads at once.
class JobProgress {
 public:
  void Apply(const v1::WatchJobResponse& update, absl::Time now);

  const v1::Job& job() const { return job_; }
  const std::optional<v1::StepMetrics>& step() const { return step_; }
  const std::optional<v1::EvaluationMetrics>& evaluation() const { return evaluation_; }
  // What its stages did in the last step, where that is watched.
  const std::optional<v1::StagesDone>& stages() const { return stages_; }
  // The first ones that came, kMaxWarnings at most.
  const std::vector<std::string>& warnings() const { return warnings_; }
  static constexpr size_t kMaxWarnings = 8;

  // Optimizer steps in training, mini-batches in inference.
  int64_t done() const { return done_; }
  int64_t total() const;
  double share() const;
  // `step` or `batch`.
  std::string unit() const;
  absl::Duration elapsed(absl::Time now) const;
  std::optional<absl::Duration> eta(absl::Time now) const;

 private:
  void ApplyJob(const v1::Job& job, absl::Time now);
  void SetPace(absl::Time now);
  bool trains() const { return job_.spec().has_train(); }

  v1::Job job_;
  std::optional<v1::StepMetrics> step_;
  std::optional<v1::EvaluationMetrics> evaluation_;
  std::optional<v1::StagesDone> stages_;
  std::vector<std::string> warnings_;
  int64_t done_ = 0;
  // When the pace began to be measured, and what was done by then.
  absl::Time pace_from_ = absl::InfinitePast();
  int64_t pace_from_done_ = 0;
  // It ran already when the first word of it came, whose count may be older than the next step's.
  bool joined_late_ = false;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_JOB_PROGRESS_H_
