#ifndef GPIPE_ORCHESTRATOR_JOBS_STORED_JOB_H_
#define GPIPE_ORCHESTRATOR_JOBS_STORED_JOB_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::orchestrator {

// Content of each file that a spec names, by path as in the spec.
using FileMap = std::map<std::string, v1::ArtifactRef>;

// What the files of a checkpoint are named after (common/safetensors/shard_names.h); the final model's, too.
inline constexpr char kModelStem[] = "model";
inline constexpr char kOptimizerStem[] = "optimizer";

// The files of one complete checkpoint, and where training goes on from it.
struct CheckpointFiles {
  int64_t step = 0;  // Optimizer steps done.
  v1::ArtifactRef manifest;
  FileMap files;  // By name: the model's and the optimizer's, with their indices.
};

// Those of the files that hold the tensors of that stem, by number.
std::vector<v1::ArtifactRef> TensorFilesOf(const FileMap& files, std::string_view stem);

// All that is kept of a job, besides its events, metrics and checkpoints.
struct StoredJob {
  v1::Job job;
  // Position in the queue: ascending in order of submission. Given by the store.
  int64_t sequence = 0;
  // The client's; empty when it gave none, and then every submission is a new job.
  std::string request_id;
  // Fingerprint() of the client's request: tells a repeated request from another one under the same id.
  std::string fingerprint;
  FileMap files;
  // The checkpoint of another job that the first attempt starts from.
  std::optional<CheckpointFiles> resume;
};

// A digest of everything in the message.
std::string Fingerprint(const google::protobuf::MessageLite& message);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_STORED_JOB_H_
