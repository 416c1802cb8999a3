#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_CHECKPOINT_ASSEMBLER_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_CHECKPOINT_ASSEMBLER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {

// Making whole files of what the workers uploaded, keyed by parameter name, so that nothing of the cut is left in them.
// Plain blocking functions, for a background thread: they read and write whole models. Several may run at once.

// What manifest.json says. It is written last and holds the digests of the other files, so that a checkpoint either
// has a manifest that fits or does not count.
struct Manifest {
  static constexpr int kFormatVersion = 1;

  std::string job;
  int64_t step = 0;  // Optimizer steps done.
  v1::ArtifactRef model;
  v1::ArtifactRef optimizer;
  int64_t model_tensors = 0;
  int64_t optimizer_tensors = 0;
};

std::string WriteManifest(const Manifest& manifest);
// INVALID_ARGUMENT: not a manifest, or one of another format version.
absl::StatusOr<Manifest> ReadManifest(std::string_view bytes);

// Merges the shards of all workers, writes and stores the three files. The result counts once it is in the Store.
// A worker whose stages have no parameters, or whose optimizer has no state, may leave that part of its shard unset.
// REQUIRES: the shards are of one attempt.
// NOT_FOUND: a shard is not in the store. INVALID_ARGUMENT: a shard is not safetensors, two hold the same name, or they
// are of several steps.
absl::StatusOr<CheckpointFiles> AssembleCheckpoint(ArtifactStore& store, std::string_view job_id,
                                                   absl::Span<const v1::CheckpointShard> shards);

// The final model.safetensors out of each worker's Finished.model. Same errors.
absl::StatusOr<v1::ArtifactRef> MergeModel(ArtifactStore& store, absl::Span<const v1::ArtifactRef> parts);

// Checks the files of a checkpoint folder that a client uploaded to resume from: the manifest against the content of
// both files. INVALID_ARGUMENT names what does not match, by field (`resume_files.model`); NOT_FOUND what is not here.
absl::StatusOr<CheckpointFiles> CheckResumeFiles(const ArtifactStore& store, const v1::ResumeFiles& files);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_CHECKPOINT_ASSEMBLER_H_
