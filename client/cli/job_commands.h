#ifndef GPIPE_CLIENT_CLI_JOB_COMMANDS_H_
#define GPIPE_CLIENT_CLI_JOB_COMMANDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"

namespace gpipe::client {

// `gpipe job ...`: one function per verb. A status that is not OK is for the caller to print and to exit by.

struct JobOptions {
  std::string spec;
  std::string id;
  std::vector<std::string> ids;  // Of verbs that take several jobs.
  std::string output;            // Empty: the job's name.
  std::string resume;
  std::string request_id;
  std::vector<std::string> states;
  int limit = 100;
  double timeout_seconds = 0;  // 0: for ever.
  bool wait = false;
  bool cycles = false;
  bool stages = false;
  int64_t step = 0;      // Of the timeline; 0: the last one.
  std::string timeline;  // Its file; empty: words.
  bool follow = false;
};

absl::StatusOr<ExitCode> JobSubmit(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobList(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobGet(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobDescribe(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobWatch(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobWait(const GlobalOptions& global, const JobOptions& options);
// Waits until it is written. ABORTED: the job ended, or began anew, without it.
absl::StatusOr<ExitCode> JobCheckpoint(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobPause(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobResume(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobCancel(const GlobalOptions& global, const JobOptions& options);
// Each of the jobs, whatever becomes of the others; not OK as the first of them that could not be deleted.
absl::StatusOr<ExitCode> JobDelete(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobPull(const GlobalOptions& global, const JobOptions& options);
absl::StatusOr<ExitCode> JobLogs(const GlobalOptions& global, const JobOptions& options);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_JOB_COMMANDS_H_
