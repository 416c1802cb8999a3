#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_DATA_FILES_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_DATA_FILES_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "common/data/sample_table.h"
#include "common/safetensors/header.h"
#include "gpipe/v1/job_spec.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/artifacts/shared_data.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {

// Where the files of a spec are looked for: what its client sent, and what a worker has found under shared paths.
struct SpecFiles {
  const FileMap& files;
  const ArtifactStore& store;
  const SharedTables& shared;
};

// Files of a spec's data, `paths`, as one data set; tokens where `tokens` is not null. INVALID_ARGUMENT for `field`,
// and names the file.
absl::StatusOr<data::SampleTable> OpenSamples(const std::string& field,
                                              const google::protobuf::RepeatedPtrField<std::string>& paths,
                                              const v1::Tokens* tokens, const SpecFiles& where);

// The data set that a spec describes with files. The field is `path` or `tokens.path` below `field`.
absl::StatusOr<data::SampleTable> OpenSamples(const std::string& field, const v1::Dataset& dataset,
                                              const SpecFiles& where);

// The tensors of the weights that a spec names, by the types and shapes that are in the one file or in all shards of
// the index. REQUIRES: the spec names some. INVALID_ARGUMENT lists all that is wrong with the files, and what the index
// says of them that is not so.
absl::StatusOr<std::map<std::string, safetensors::TensorInfo>> OpenWeights(const v1::JobSpec& spec,
                                                                           const SpecFiles& where);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_DATA_FILES_H_
