#ifndef GPIPE_COMMON_SPEC_UNBATCHED_H_
#define GPIPE_COMMON_SPEC_UNBATCHED_H_

#include <set>
#include <string>
#include <vector>

#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::spec {

// Whether a tensor is among those that a data set, or `infer`, names as `unbatched`. Pure; any thread, as is the rest.
bool IsUnbatched(const google::protobuf::RepeatedPtrField<std::string>& unbatched, const std::string& name);

// Those of the model's inputs, in its order, that have no samples in the job's data, also in its evaluation data: in
// training by their place among the data set's inputs, in inference by name. REQUIRES: Validate(spec) is OK, and it has
// its defaults.
std::set<std::string> UnbatchedInputs(const v1::JobSpec& spec, const std::vector<std::string>& inputs);

}  // namespace gpipe::spec

#endif  // GPIPE_COMMON_SPEC_UNBATCHED_H_
