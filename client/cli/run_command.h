#ifndef GPIPE_CLIENT_CLI_RUN_COMMAND_H_
#define GPIPE_CLIENT_CLI_RUN_COMMAND_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"
#include "client/local/local_cluster.h"
#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::client {

struct RunOptions {
  std::string spec;
  std::string output;  // Empty: the job's name.
  int workers = 0;     // 0: as the spec says.
  int threads = 0;     // 0: the machine's cores, shared by the workers.
  int gpus = 0;        // 0: count them.
  std::string device;  // Empty: as the spec says, the CPU when that is any.
  std::string resume;  // A folder with a checkpoint.
  bool overwrite = false;
  bool keep_logs = false;
  bool trace = false;
  bool timeline = false;
};

// `gpipe run`: a private cluster, the job, its results, and nothing left behind.
absl::StatusOr<ExitCode> Run(const GlobalOptions& global, const RunOptions& options);

// How large the private cluster is, and the spec as it must be for it: workers beyond the stages or layers are not
// started, and with fewer workers than stages neighbouring stages share. INVALID_ARGUMENT when there is no GPU for it.
absl::StatusOr<LocalClusterOptions> FitCluster(const RunOptions& options, int cores, int gpus, v1::JobSpec& spec);

// INVALID_ARGUMENT when so many workers would bring a machine with so much free memory to its knees.
absl::Status CheckFits(int workers, int cores, int64_t free_bytes);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_RUN_COMMAND_H_
