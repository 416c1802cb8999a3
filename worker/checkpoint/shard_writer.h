#ifndef GPIPE_WORKER_CHECKPOINT_SHARD_WRITER_H_
#define GPIPE_WORKER_CHECKPOINT_SHARD_WRITER_H_

#include <filesystem>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/data/artifacts.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Writes a worker's tensors as a safetensors file into `folder`, uploads it and removes it. On CUDA it waits for the
// device. RESOURCE_EXHAUSTED when the disk is full. One thread at a time for one name.
absl::StatusOr<v1::ArtifactRef> UploadShard(std::string_view name, const std::vector<NamedTensor>& tensors,
                                            const std::filesystem::path& folder, Artifacts& artifacts);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_SHARD_WRITER_H_
