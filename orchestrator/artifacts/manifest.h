#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_MANIFEST_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_MANIFEST_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// What manifest.json says. It is written last and holds the digests of the other files, so that a checkpoint either
// has a manifest that fits or does not count.
struct Manifest {
  struct File {
    v1::ArtifactRef ref;
    int64_t tensors = 0;  // Of an index, those it names.
  };

  std::string job;
  int64_t step = 0;  // Optimizer steps done.
  // By name (safetensors/shard_names.h): the model's and the optimizer's, with their indices.
  std::map<std::string, File> files;
};

// Format version 1 where the model and the optimizer are one file each, else 2.
std::string WriteManifest(const Manifest& manifest);
// INVALID_ARGUMENT: not a manifest, or one of another format version.
absl::StatusOr<Manifest> ReadManifest(std::string_view bytes);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_MANIFEST_H_
