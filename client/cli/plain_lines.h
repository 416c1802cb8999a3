#ifndef GPIPE_CLIENT_CLI_PLAIN_LINES_H_
#define GPIPE_CLIENT_CLI_PLAIN_LINES_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/job_progress.h"

namespace gpipe::client {

// The updates of a job as lines for a log: changes of state, warnings, evaluations, clock cycles, and at most once a
// second a line about progress and what the stages did. Not for use by two threads at once.
class PlainLines {
 public:
  // The lines to print for this update.
  std::vector<std::string> Take(const v1::WatchJobResponse& update, absl::Time now);

 private:
  JobProgress progress_;
  absl::Time last_progress_ = absl::InfinitePast();
  absl::Time last_stages_ = absl::InfinitePast();
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_PLAIN_LINES_H_
