#ifndef GPIPE_WORKER_EXPORTED_MATCH_INPUTS_H_
#define GPIPE_WORKER_EXPORTED_MATCH_INPUTS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::worker {

// Pure functions; any thread.

// The field of the spec that names the data's tensors.
const char* DataField(const v1::Inspect& request);

// The data's tensor for each of the program's inputs: by order in training, by name in inference. INVALID_ARGUMENT, by
// field path: one is missing, or of another type or shape.
absl::StatusOr<std::vector<v1::ModelValue>> MatchInputs(const v1::Inspect& request, const exported::Program& program);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_MATCH_INPUTS_H_
