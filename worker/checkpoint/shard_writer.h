#ifndef GPIPE_WORKER_CHECKPOINT_SHARD_WRITER_H_
#define GPIPE_WORKER_CHECKPOINT_SHARD_WRITER_H_

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/shard_names.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "worker/data/artifacts.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

struct ShardOptions {
  // Of a file's tensors; one that is larger has a file of its own.
  int64_t max_shard_bytes = safetensors::kMaxShardBytes;
  v1::PartOf part_of = {};
  // The orchestrator's folder of artifacts, where files are left for it (common/artifacts/parts.h). Empty: they are
  // uploaded.
  std::filesystem::path artifacts = {};
  std::filesystem::path scratch = {};  // For files on their way, where they are uploaded.
  std::stop_token stop = {};
};

using Refs = google::protobuf::RepeatedPtrField<v1::ArtifactRef>;

// Hands a worker's tensors over to the orchestrator in one safetensors file or several, each written and hashed in one
// pass: where they are left for it a few at a time, else one after the other. On CUDA it waits for the device, and no
// more than a few pieces of them are on the host. CANCELLED soon after `stop` is stopped; RESOURCE_EXHAUSTED when the
// disk is full. One thread at a time.
absl::StatusOr<Refs> WriteShards(const std::vector<NamedTensor>& tensors, const ShardOptions& options,
                                 Artifacts& artifacts);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_SHARD_WRITER_H_
