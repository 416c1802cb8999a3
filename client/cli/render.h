#ifndef GPIPE_CLIENT_CLI_RENDER_H_
#define GPIPE_CLIENT_CLI_RENDER_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/job_progress.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// Words for a job, as strings, so that they can be tested without a terminal.

struct RenderStyle {
  int width = 80;  // Of the terminal; no line is longer.
  bool color = false;
};

// The live view: state, bar, metrics, last evaluation, and one line per stage.
std::vector<std::string> RenderLive(const JobProgress& progress, const RenderStyle& style, absl::Time now);

// `step 150/290  52%  loss 0.4312  1234 samples/s  eta 0:12`
std::string RenderProgressLine(const JobProgress& progress, absl::Time now);
// What each stage did in a step, as a table: for how long of it, for whom it waited, what it sent and got a second.
std::vector<std::string> RenderStages(const v1::Job& job, const v1::StagesDone& stages);
// `w0 preparing 1.2 GiB, 800.0 MiB/s`: of one worker of the job.
std::string RenderActivity(const v1::Job& job, const v1::WorkerActivity& activity);
// `step 100  evaluation: loss 0.2110, accuracy 95.1%`
std::string RenderEvaluation(const v1::EvaluationMetrics& evaluation);
// `digits-a1b2c3 RUNNING on w0, w1, w2`
std::string RenderState(const v1::Job& job);
// `round 3 cycle 5  stage0 B2  stage1 F4`
std::string RenderCycle(const v1::CycleDone& cycle);
// `warning: ...`
std::string RenderWarning(const std::string& message);
// `2026-01-31 12:34:56+01:00  RUNNING  orchestrator  all workers are prepared`
std::string RenderEvent(const v1::JobEvent& event);

// How a job in a terminal state ended; of a failed one the cause, then the consequences indented. No \n at the end.
std::string RenderEnd(const JobProgress& progress);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_RENDER_H_
