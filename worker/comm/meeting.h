#ifndef GPIPE_WORKER_COMM_MEETING_H_
#define GPIPE_WORKER_COMM_MEETING_H_

#include <c10/core/Device.h>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

// Waits on the host until all workers of the attempt have come here, so that everything that was sent before has
// arrived and been used, and whoever goes from here on takes nothing along. A transfer that is over for its sender may
// still be on its way, in buffers that end with the sender's process. A collective; the engine's thread.
// REQUIRES: every transfer was waited for (Work::Wait). Not OK: what came in may be garbage.
absl::Status Meet(Communicator& communicator, c10::Device device);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_MEETING_H_
