#ifndef GPIPE_WORKER_ENGINE_OWN_FAILURE_H_
#define GPIPE_WORKER_ENGINE_OWN_FAILURE_H_

#include "absl/status/status.h"

namespace gpipe::worker {

// UNAVAILABLE is what a broken connection with a peer gives, and makes a failure the consequence of the peer's. Where
// no peer has a part in it, in fetching and sending files, an orchestrator that cannot be reached is a failure of its
// own.
inline absl::Status OwnFailure(const absl::Status& status) {
  return absl::IsUnavailable(status) ? absl::AbortedError(status.message()) : status;
}

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_OWN_FAILURE_H_
