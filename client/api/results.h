#ifndef GPIPE_CLIENT_API_RESULTS_H_
#define GPIPE_CLIENT_API_RESULTS_H_

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "client/api/cluster_client.h"

namespace gpipe::client {

// Makes the folder if it is not there, and says why it cannot be written to: before a job, rather than after it.
absl::Status PrepareFolder(const std::filesystem::path& folder);

// The job whose results the folder has, by its job.json; an empty one where that does not tell.
v1::Job ReadJob(const std::filesystem::path& folder);

struct PullOptions {
  // The job goes on with the one whose results the folder has: that one's metrics and evaluations of earlier steps
  // stay.
  bool continues = false;
  // The folder of the orchestrator's artifacts, where it is on this machine and goes away after this: what lies there
  // is linked, not fetched. Empty: everything is fetched.
  std::filesystem::path artifacts;
};

// Writes what a job made into `folder`, which is prepared: metrics.jsonl, evaluation.jsonl, job.json, and
// the files of job.results (model.safetensors, or its shards and their index, or outputs.safetensors; checkpoints/).
// Those files are replaced; a job that succeeded without a model or outputs, or with fewer shards, removes those of an
// earlier one; everything else stays. Each appears whole or not at all; manifests of checkpoints come after what they
// describe. See PullOptions.
absl::Status PullResults(ClusterClient& client, const v1::Job& job, const std::filesystem::path& folder,
                         const PullOptions& options = {});

// One line of metrics.jsonl or evaluation.jsonl: plain JSON, numbers as numbers, without the end of line.
std::string MetricsLine(const v1::StepMetrics& step);
std::string EvaluationLine(const v1::EvaluationMetrics& evaluation);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_RESULTS_H_
