#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_DATA_FILES_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_DATA_FILES_H_

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/safetensors/header.h"
#include "gpipe/v1/job_spec.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {

// A safetensors file that a spec names, found by its content.
struct DataFile {
  std::filesystem::path path;
  safetensors::Header header;
};

// INVALID_ARGUMENT for `field`: no content was given for `path`, it was not uploaded, or it is not a good file.
absl::StatusOr<DataFile> OpenDataFile(std::string_view field, const std::string& path, const FileMap& files,
                                      const ArtifactStore& store);

// The tensors of the weights that a spec names, by the types and shapes that are in the one file or in all shards of
// the index. REQUIRES: the spec names some. INVALID_ARGUMENT lists all that is wrong with the files, and what the index
// says of them that is not so.
absl::StatusOr<std::map<std::string, safetensors::TensorInfo>> OpenWeights(const v1::JobSpec& spec,
                                                                           const FileMap& files,
                                                                           const ArtifactStore& store);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_DATA_FILES_H_
