#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_CHECKPOINT_ASSEMBLER_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_CHECKPOINT_ASSEMBLER_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/safetensors/shard_names.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {

// Making a job's files of the parts that workers handed over (uploaded, or left: common/artifacts/parts.h), keyed by
// parameter name. Parts that are small together are joined into one file, written and hashed in one pass, in which
// nothing of the cut is left; larger ones are kept as they are, as shards with an index (safetensors/shard_names.h).
// Plain blocking functions, for a background thread: they read and write whole models. Several may run at once.

// Makes and stores the files of one checkpoint of the shards of all workers. The result counts once it is in the Store.
// A worker whose stages have no parameters, or whose optimizer has no state, may leave that part of its shard unset.
// Parts that were left are gone afterwards. REQUIRES: the shards are of that attempt.
// NOT_FOUND: a part is not there. INVALID_ARGUMENT: a part is not safetensors, two hold the same name, or the shards
// are of several steps.
absl::StatusOr<CheckpointFiles> AssembleCheckpoint(ArtifactStore& store, const v1::AttemptId& attempt,
                                                   absl::Span<const v1::CheckpointShard> shards,
                                                   int64_t max_shard_bytes = safetensors::kMaxShardBytes);

// The files of the final model, by name, out of all workers' Finished.model. Same errors.
absl::StatusOr<FileMap> AssembleModel(ArtifactStore& store, const v1::AttemptId& attempt,
                                      absl::Span<const v1::ArtifactRef> parts,
                                      int64_t max_shard_bytes = safetensors::kMaxShardBytes);

// Removes all parts that the workers of an attempt have left: it is over. What cannot be removed now is at the next
// start.
void RemoveParts(const ArtifactStore& store, const v1::AttemptId& attempt);

// Checks the files of a checkpoint folder that a client uploaded to resume from: the manifest against the content of
// all files. INVALID_ARGUMENT names what does not match, by field (`resume_files.files[model.safetensors]`); NOT_FOUND
// what is not here.
absl::StatusOr<CheckpointFiles> CheckResumeFiles(const ArtifactStore& store, const v1::ResumeFiles& files);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_CHECKPOINT_ASSEMBLER_H_
