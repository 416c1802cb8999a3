#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_SHARED_DATA_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_SHARED_DATA_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "common/data/sample_table.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {

// What a worker has found under a spec's shared paths, by field: tensors without their places, which only workers need.
using SharedTables = std::map<std::string, data::SampleTable>;

// The question about all shared paths of a spec; asks nothing when it has none. Pure.
v1::Survey MakeSurvey(const v1::JobSpec& spec);

// Puts the answer into the spec (files in the place of patterns), among the files, and into tables by field.
// INTERNAL: the answer is not about what was asked.
absl::Status TakeSurvey(const v1::Survey& asked, const v1::Surveyed& answer, v1::JobSpec& spec, FileMap& files,
                        SharedTables& tables);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_SHARED_DATA_H_
