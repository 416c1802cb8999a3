#ifndef GPIPE_WORKER_DAEMON_H_
#define GPIPE_WORKER_DAEMON_H_

#include "absl/status/status.h"
#include "common/log_output.h"
#include "worker/options.h"

namespace gpipe::worker {

// Runs a worker until SIGTERM or SIGINT, or until the orchestrator has refused it for too long (the refusal is
// returned). `log_context` learns what the engine works on while there is one. A second signal ends the process at once
// with code 1. Called by main, before any other thread is there.
absl::Status RunWorker(const Options& options, LogContextSource& log_context);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DAEMON_H_
