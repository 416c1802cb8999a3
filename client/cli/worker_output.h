#ifndef GPIPE_CLIENT_CLI_WORKER_OUTPUT_H_
#define GPIPE_CLIENT_CLI_WORKER_OUTPUT_H_

#include <string>

#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

// Tables, each line ended by \n.

// One line a worker; how GPUs are only where there are some.
std::string RenderWorkers(const v1::ListWorkersResponse& workers);
// Everything about one worker: `describe`.
std::string RenderWorker(const v1::Worker& worker);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_WORKER_OUTPUT_H_
