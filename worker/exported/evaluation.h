#ifndef GPIPE_WORKER_EXPORTED_EVALUATION_H_
#define GPIPE_WORKER_EXPORTED_EVALUATION_H_

#include "absl/status/status.h"
#include "worker/exported/archive.h"

namespace gpipe::worker {

// Whether program() is the model in evaluation, as it is or turned off (MakeOperatorCall). gpipe.export has compared
// the two. Of a program of another exporter it is taken for granted, unless it draws random numbers by other operators
// than those that are known to be for training. INVALID_ARGUMENT says why not, and what works instead. REQUIRES: the
// program's operators exist.
absl::Status CheckEvaluates(const Archive& archive);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_EVALUATION_H_
