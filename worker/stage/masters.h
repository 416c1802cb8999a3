#ifndef GPIPE_WORKER_STAGE_MASTERS_H_
#define GPIPE_WORKER_STAGE_MASTERS_H_

#include <vector>

#include "absl/status/status.h"
#include "worker/model/precision.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Gives a parameter that is trained its master, if it is to have one and has none yet: that of its name in `pool`, or a
// new one, which goes there if there is a pool. The gradients of one that has a master are of its type from now on.
void GiveMaster(const Precision& precision, Values* pool, NamedTensor& parameter);

// The same tensors, but the masters of those that have one: to be filled from files, or saved.
std::vector<NamedTensor> WithMasters(std::vector<NamedTensor> state);

// The masters have changed: rounds them to what is computed with. On CUDA nothing waits for the device.
absl::Status RoundMasters(const std::vector<NamedTensor>& state);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_MASTERS_H_
